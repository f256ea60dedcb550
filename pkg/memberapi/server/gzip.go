package server

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"strings"
	"sync"
)

// compressors are in use while a part is compressed, and not while it is sent: a
// window for each client that does not read would be 800 KB.
var compressors = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level exists
	return w
}}

// gzipHeader is that of a stream without a name or a time (RFC 1952), gzipEnd the
// last block, which is empty.
const gzipHeader, gzipEnd = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", "\x01\x00\x00\xff\xff"

// compression makes one gzip stream of parts that refer to nothing before them.
type compression struct {
	begun         bool
	checksum, len uint32
}

// acceptsGzip says whether a client takes compressed answers.
func acceptsGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

// part is the compressed text; last ends the stream.
func (c *compression) part(text []byte, last bool) []byte {
	var out bytes.Buffer
	if !c.begun {
		out.WriteString(gzipHeader)
		c.begun = true
	}
	w := compressors.Get().(*flate.Writer)
	w.Reset(&out)
	_, _ = w.Write(text) // a Buffer takes everything
	_ = w.Flush()
	compressors.Put(w)
	c.checksum = crc32.Update(c.checksum, crc32.IEEETable, text)
	c.len += uint32(len(text))
	if last {
		out.WriteString(gzipEnd)
		_ = binary.Write(&out, binary.LittleEndian, [2]uint32{c.checksum, c.len})
	}
	return out.Bytes()
}
