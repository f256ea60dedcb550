package replica

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
)

// packedFrom is the size from which Pack compresses values, in 10 ms for each megabyte. maxUnpacked bounds what one expands to.
const packedFrom, maxUnpacked = MaxValueBytes / 2, 16 << 20

// Pack compresses a value that is large, JSON to a quarter or so: one beyond MaxValueBytes is not told to other replicas at all.
func Pack(value []byte) []byte {
	if len(value) < packedFrom {
		return value
	}
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed) // which is a level that there is
	_, _ = w.Write(value)                                // a Buffer takes all
	_ = w.Close()
	return packed.Bytes()
}

// Unpack undoes Pack.
func Unpack(value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, []byte{0x1f, 0x8b}) {
		return value, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, fmt.Errorf("unpack a value: %w", err)
	}
	all, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("unpack a value: %w", err)
	}
	if len(all) > maxUnpacked {
		return nil, fmt.Errorf("unpack a value: it has more than %d bytes", maxUnpacked)
	}
	return all, nil
}
