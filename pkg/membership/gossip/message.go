package gossip

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Kinds of memberlist's messages that a node takes, as in its net.go. Others are not sent
// in a fleet: messages of users, and those that are compressed, encrypted or nested.
const (
	pingMessage, indirectPingMessage, ackMessage, suspectMessage, aliveMessage, deadMessage = 0, 1, 2, 3, 4, 5

	pushPullMessage, compoundMessage, nackMessage, checkedMessage, errorMessage, labelHeader = 6, 7, 11, 12, 13, 244
)

const (
	// maxPushed is how many nodes a push/pull may have. memberlist makes room for as many
	// as its header says before it reads any, up to a million: 100 MB.
	maxPushed = 10_000
	// maxDepth is of values in values: a message is a map, with lists of bytes in it.
	maxDepth = 4
)

var (
	errTruncated = errors.New("a message of memberlist is cut off")
	errNested    = errors.New("a message of memberlist has values in values in values")
)

// checkPacket returns why memberlist is not given a packet. It would unpack 2 kB to 40 MB,
// and read lengths that are not there.
func checkPacket(b []byte) error {
	b, err := withoutLabel(b)
	if err != nil {
		return err
	}
	if len(b) > 5 && b[0] == checkedMessage {
		b = b[5:]
	}
	if len(b) == 0 || b[0] != compoundMessage {
		return checkMessage(b)
	}
	if len(b) < 2 || len(b) < 2+2*int(b[1]) {
		return errTruncated
	}
	lengths, rest := b[2:2+2*int(b[1])], b[2+2*int(b[1]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(rest) {
			return errTruncated
		}
		if err := checkMessage(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func withoutLabel(b []byte) ([]byte, error) {
	switch {
	case len(b) == 0 || b[0] != labelHeader:
		return b, nil
	case len(b) < 2 || len(b) < 2+int(b[1]):
		return nil, errTruncated
	}
	return b[2+int(b[1]):], nil
}

// checkMessage checks one message of a packet.
func checkMessage(b []byte) error {
	if len(b) == 0 {
		return errTruncated
	}
	switch b[0] {
	case pingMessage, indirectPingMessage, ackMessage, nackMessage, suspectMessage, aliveMessage, deadMessage:
		return checkValue(bytes.NewReader(b[1:]), maxDepth)
	}
	return fmt.Errorf("a packet with a message of kind %d", b[0])
}

// readMessage reads the one message of a stream, and checks it. dialled: this node has dialled,
// and the message is an answer.
func readMessage(from io.Reader, dialled bool) ([]byte, error) {
	var all bytes.Buffer
	r := io.TeeReader(io.LimitReader(bufio.NewReader(from), maxStream), &all)
	kind, err := readByte(r)
	if err == nil && kind == labelHeader && !dialled {
		var n byte
		if n, err = readByte(r); err == nil {
			if err = skip(r, uint64(n)); err == nil {
				kind, err = readByte(r)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	values := 1
	switch {
	case kind == pushPullMessage:
		values, err = readHeader(r, &all)
	case kind == pingMessage && !dialled, (kind == ackMessage || kind == errorMessage) && dialled:
	default:
		err = fmt.Errorf("a stream with a message of kind %d", kind)
	}
	for ; values > 0 && err == nil; values-- {
		err = checkValue(r, maxDepth)
	}
	return all.Bytes(), err
}

// readHeader reads the header of a push/pull, and returns how many nodes follow.
func readHeader(r io.Reader, all *bytes.Buffer) (nodes int, err error) {
	begin := all.Len()
	if err := checkValue(r, maxDepth); err != nil {
		return 0, err
	}
	var header struct{ Nodes, UserStateLen int }
	if err := codec.NewDecoderBytes(all.Bytes()[begin:], &codec.MsgpackHandle{}).Decode(&header); err != nil {
		return 0, fmt.Errorf("read the header of a push/pull: %w", err)
	}
	if header.Nodes < 0 || header.Nodes > maxPushed || header.UserStateLen != 0 {
		return 0, fmt.Errorf("a push/pull of %d nodes and %d bytes of users", header.Nodes, header.UserStateLen)
	}
	return header.Nodes, nil
}

// checkValue reads one value of MessagePack, in which no length is more than there is.
func checkValue(r io.Reader, depth int) error {
	kind, err := readByte(r)
	if err != nil {
		return err
	}
	if depth == 0 {
		return errNested
	}
	values := uint64(0)
	switch {
	case kind < 0x80, kind >= 0xe0, kind == 0xc0, kind == 0xc2, kind == 0xc3: // small numbers, nil and booleans
	case kind < 0x90:
		values = 2 * uint64(kind&0xf)
	case kind < 0xa0:
		values = uint64(kind & 0xf)
	case kind < 0xc0:
		return skip(r, uint64(kind&0x1f))
	case kind >= 0xc4 && kind <= 0xc6: // bytes, after their number of 1, 2 or 4 bytes
		return skipSized(r, 1<<(kind-0xc4))
	case kind == 0xca, kind == 0xcb:
		return skip(r, 4<<(kind-0xca))
	case kind >= 0xcc && kind <= 0xd3:
		return skip(r, 1<<((kind-0xcc)%4))
	case kind >= 0xd9 && kind <= 0xdb:
		return skipSized(r, 1<<(kind-0xd9))
	case kind >= 0xdc:
		if values, err = readNumber(r, 2<<(kind%2)); kind >= 0xde {
			values *= 2
		}
	default: // extensions
		return fmt.Errorf("a value of kind %#x", kind)
	}
	for ; values > 0 && err == nil; values-- {
		err = checkValue(r, depth-1)
	}
	return err
}

func readByte(r io.Reader) (byte, error) {
	n, err := readNumber(r, 1)
	return byte(n), err
}

// readNumber reads a number of so many bytes.
func readNumber(r io.Reader, size int) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[8-size:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// skipSized skips bytes after their number.
func skipSized(r io.Reader, size int) error {
	n, err := readNumber(r, size)
	if err != nil {
		return err
	}
	return skip(r, n)
}

func skip(r io.Reader, n uint64) error {
	_, err := io.CopyN(io.Discard, r, int64(n))
	return err
}
