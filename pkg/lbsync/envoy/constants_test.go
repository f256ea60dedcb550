package envoy

import "testing"

// Constants are not validated each time, so they are here, once.
func TestConstantsAreValid(t *testing.T) {
	for body := range constants {
		message, err := body.UnmarshalNew()
		if err == nil {
			err = validate(message)
		}
		if err != nil {
			t.Errorf("%s: %v", body.GetTypeUrl(), err)
		}
	}
}
