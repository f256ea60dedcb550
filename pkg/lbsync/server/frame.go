package server

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// frame is a request as it came. It is looked at before it is parsed, because a
// message of 8 MiB may have millions of names that cost a hundred bytes each.
type frame []byte

// frameCodec is gRPC's codec for protobuf, but for frames.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() frameCodec { return frameCodec{encoding.GetCodecV2(grpcproto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		*f = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// parse reads a message that has at most maxFields fields.
func (f frame) parse(m proto.Message, maxFields int) error {
	left, err := uncounted(f, m.ProtoReflect().Descriptor(), maxFields, maxDepth)
	if err == nil && left < 0 {
		return status.Errorf(codes.ResourceExhausted, "a request of %d bytes has more than %d fields", len(f), maxFields)
	}
	if err == nil {
		err = proto.Unmarshal(f, m)
	}
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "could not parse a request of %d bytes: %v", len(f), err)
	}
	return nil
}

// maxDepth is how deep messages may be nested.
const maxDepth = 64

// uncounted is what is left of a number of fields after those of an encoded message
// and its submessages; negative if it has more.
func uncounted(b []byte, m protoreflect.MessageDescriptor, left, depth int) (int, error) {
	if depth == 0 {
		return 0, errors.New("messages are nested too deep")
	}
	for len(b) > 0 && left >= 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		left--
		if field := m.Fields().ByNumber(number); field != nil && field.Message() != nil && kind == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(b[n:])
			var err error
			if left, err = uncounted(inner, field.Message(), left, depth-1); err != nil {
				return 0, err
			}
		}
		b = b[n+size:]
	}
	return left, nil
}
