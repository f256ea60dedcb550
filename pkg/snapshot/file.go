package snapshot

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

// A file has a header, which is a line of JSON; a record for each object, which is
// its length and the object; a record of length 0; and a checksum of all that.

const (
	fileFormat  = 1
	tempPattern = ".writing-*"
	// maxRecord is far above what an API server stores as one object (1.5 MiB).
	maxRecord = 16 << 20
)

var checksums = crc32.MakeTable(crc32.Castagnoli)

// header says what a file is. A file with another header is not read: fields may
// have another meaning in another version of the program.
type header struct {
	Format  int    `json:"format"`
	Program string `json:"program"` // its version
	Kind    string `json:"kind"`
}

// errTooLarge is returned by writeFile for objects that do not fit.
var errTooLarge = errors.New("larger than the space for snapshots")

// binaryObject is an object with protobuf of its own, as all types of k8s.io/api
// are. The others are JSON, which takes about five times as long.
type binaryObject interface {
	Size() int
	MarshalToSizedBuffer(data []byte) (int, error)
	Unmarshal(data []byte) error
}

// writeFile replaces a file. It returns its size, and leaves the old one where it
// fails.
func writeFile(path string, h header, objects []runtime.Object, limit int64) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPattern) // with mode 0600
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	e := &encoder{limit: limit, sum: crc32.New(checksums), out: bufio.NewWriterSize(f, 64<<10)}
	line, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	if err := e.write(append(line, '\n')); err != nil {
		return 0, err
	}
	for _, o := range objects {
		if err := e.record(o); err != nil {
			return 0, err
		}
	}
	if err := e.finish(); err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return e.size, os.Rename(f.Name(), path)
}

// encoder writes the parts of a file. It uses one buffer for all records.
type encoder struct {
	limit, size int64
	sum         io.Writer
	out         *bufio.Writer
	buffer      []byte
}

func (e *encoder) write(data []byte) error {
	if e.size += int64(len(data)); e.size > e.limit {
		return errTooLarge
	}
	_, _ = e.sum.Write(data) // a hash returns no error
	_, err := e.out.Write(data)
	return err
}

func (e *encoder) record(o runtime.Object) error {
	data, err := e.encode(o)
	if err != nil {
		return err
	}
	if len(data) == 0 || len(data) > maxRecord {
		return fmt.Errorf("an object of %d bytes", len(data))
	}
	if err := e.write(binary.LittleEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	return e.write(data)
}

// encode returns bytes that are valid until the next call.
func (e *encoder) encode(o runtime.Object) ([]byte, error) {
	object, ok := o.(binaryObject)
	if !ok {
		return json.Marshal(o)
	}
	size := object.Size()
	if size > cap(e.buffer) {
		e.buffer = make([]byte, 2*size)
	}
	n, err := object.MarshalToSizedBuffer(e.buffer[:size])
	return e.buffer[size-n : size], err
}

func (e *encoder) finish() error {
	if err := e.write(make([]byte, 4)); err != nil {
		return err
	}
	if err := binary.Write(e.out, binary.LittleEndian, e.sum.(interface{ Sum32() uint32 }).Sum32()); err != nil {
		return err
	}
	return e.out.Flush()
}

// readFile reads a file that is not older than maxAge. newObject makes an empty
// object of its kind.
func readFile(path string, want header, maxAge time.Duration, newObject func() runtime.Object) ([]runtime.Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if age := time.Since(info.ModTime()); age > maxAge {
		return nil, fmt.Errorf("it is %s old, and counts for %s", age.Round(time.Second), maxAge)
	}
	in, sum := bufio.NewReaderSize(f, 64<<10), crc32.New(checksums)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, damaged(err)
	}
	_, _ = sum.Write(line)
	var have header
	if err := json.Unmarshal(line, &have); err != nil {
		return nil, damaged(err)
	}
	if have != want {
		return nil, fmt.Errorf("it is of another program: %+v, want %+v", have, want)
	}
	var objects []runtime.Object
	for checked := io.TeeReader(in, sum); ; {
		data, err := readRecord(checked)
		if err != nil {
			return nil, damaged(err)
		}
		if data == nil {
			break
		}
		o := newObject()
		if err := decode(data, o); err != nil {
			return nil, damaged(err)
		}
		objects = append(objects, o)
	}
	var stored uint32
	if err := binary.Read(in, binary.LittleEndian, &stored); err != nil || stored != sum.Sum32() {
		return nil, damaged(errors.New("wrong checksum"))
	}
	return objects, nil
}

// readRecord returns nil after the last record.
func readRecord(in io.Reader) ([]byte, error) {
	var length uint32
	if err := binary.Read(in, binary.LittleEndian, &length); err != nil || length == 0 {
		return nil, err
	}
	if length > maxRecord {
		return nil, fmt.Errorf("an object of %d bytes", length)
	}
	data := make([]byte, length)
	_, err := io.ReadFull(in, data)
	return data, err
}

func decode(data []byte, o runtime.Object) error {
	if object, ok := o.(binaryObject); ok {
		return object.Unmarshal(data)
	}
	return json.Unmarshal(data, o)
}

func damaged(err error) error { return fmt.Errorf("it is damaged: %w", err) }

// removeUnfinished deletes what a program that was killed has left.
func removeUnfinished(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, tempPattern))
	for _, path := range left {
		_ = os.Remove(path)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
