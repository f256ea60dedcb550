package envoy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// validate checks Envoy's own constraints (protoc-gen-validate), also inside every Any, where the generated ValidateAll
// stops. It also checks what Envoy checks in code only: regular expressions and weights.
func validate(message proto.Message) error {
	if v, ok := message.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	return validateInside(message.ProtoReflect())
}

func validateInside(m protoreflect.Message) (err error) {
	switch message := m.Interface().(type) {
	case *anypb.Any:
		if constants[message] {
			return nil
		}
		inner, err := message.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("unpack %s: %w", message.GetTypeUrl(), err)
		}
		return validate(inner)
	case *matcherv3.RegexMatcher:
		if _, err := regexp.Compile(message.GetRegex()); err != nil {
			return err
		}
	case *endpointv3.ClusterLoadAssignment: // large, frequent, and without any of these
		return nil
	case *routev3.WeightedCluster:
		if err := validateWeights(message); err != nil {
			return err
		}
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		err = validateField(field, value)
		return err == nil
	})
	return err
}

func validateField(field protoreflect.FieldDescriptor, value protoreflect.Value) error {
	switch {
	case field.IsMap():
		var errs []error
		if field.MapValue().Message() != nil {
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				errs = append(errs, validateInside(v.Message()))
				return true
			})
		}
		return errors.Join(errs...)
	case field.Message() == nil:
		return nil
	case field.IsList():
		for i := range value.List().Len() {
			if err := validateInside(value.List().Get(i).Message()); err != nil {
				return err
			}
		}
		return nil
	default:
		return validateInside(value.Message())
	}
}

func validateWeights(w *routev3.WeightedCluster) error {
	sum := uint64(0)
	for _, c := range w.GetClusters() {
		sum += uint64(c.GetWeight().GetValue())
	}
	if sum == 0 || sum > 1<<32-1 {
		return fmt.Errorf("weights sum to %d", sum)
	}
	return nil
}

// headerName is a token of RFC 9110 section 5.6.2; Envoy accepts other names and then breaks the message.
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// validateHeader refuses names that Envoy refuses, and the host, which a header change cannot set.
func validateHeader(name string) error {
	if !headerName.MatchString(name) {
		return fmt.Errorf("%q is no header name", name)
	}
	if strings.EqualFold(name, "host") {
		return errors.New("the host is changed by a rewrite, not as a header")
	}
	return nil
}
