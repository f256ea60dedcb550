package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metainternalversionvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

// handler answers requests.
type handler struct {
	*Server
	authenticator authenticator.Request
}

// request is one request of a member.
type request struct {
	reader *memberapi.Reader
	// expiry is when its credential ends; zero: not known.
	expiry time.Time
	log    *memberapi.Log
	object fleet.ObjectName // empty namespace: all; empty name: a list
	// position is the resourceVersion of options; 0: none.
	position memberapi.Position
	options  metainternalversion.ListOptions
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answered := &answer{ResponseWriter: w}
	verb, resource := "", ""
	defer func() { h.metrics.requests.WithLabelValues(resource, verb, strconv.Itoa(answered.code)).Inc() }()
	if err := h.serve(answered, r, &verb, &resource); err != nil {
		writeStatus(answered, err)
	}
}

// answer notes the code of an answer.
type answer struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// serve answers a request, or returns why not. It says what the request was.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, verb, resource *string) error {
	expiry := expiryOf(r)
	reader, err := h.readerOf(w, r)
	if err != nil {
		return err
	}
	if strings.HasPrefix(r.URL.Path, v1alpha1.GossipPathPrefix) {
		*resource = "gossip"
		return h.gossip(w, r, reader, expiry)
	}
	if r.Method != http.MethodGet {
		return apierrors.NewMethodNotSupported(schema.GroupResource{}, strings.ToLower(r.Method))
	}
	if accept := strings.Join(r.Header.Values("Accept"), ","); accept != "" && !strings.Contains(accept, "json") && !strings.Contains(accept, "*") {
		return failure(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "the member API answers in application/json only")
	}
	if document := discovery(r.URL.Path); document != nil {
		writeJSON(w, http.StatusOK, document)
		return nil
	}
	q, err := h.parse(r)
	if err != nil {
		return err
	}
	q.reader, q.expiry = reader, expiry
	*resource = q.log.Resource.Name
	if namespace := q.object.Namespace; namespace != "" && !reader.MayImport(namespace) {
		return memberapi.NotImported(reader.Cluster, namespace)
	}
	switch {
	case q.object.Name != "":
		*verb = "get"
		return h.get(w, q)
	case q.options.Watch:
		*verb = "watch"
		return h.watchObjects(w, r, q)
	default:
		*verb = "list"
		return h.list(w, r, q)
	}
}

// readerOf says which member makes a request. A client that fails gets another try on
// another connection only, so that their number bounds the tries.
func (h *handler) readerOf(w http.ResponseWriter, r *http.Request) (*memberapi.Reader, error) {
	conn := connectionOf(r.Context())
	var response *authenticator.Response
	var err error
	if !conn.try(func() (ok bool) {
		response, ok, err = h.authenticator.AuthenticateRequest(r)
		return ok && err == nil
	}) {
		w.Header().Set("Connection", "close")
		if err != nil {
			h.config.Log.V(1).Info("a client of the member API could not be authenticated", "reason", err.Error())
		}
		return nil, apierrors.NewUnauthorized("present a client certificate of the hub's cluster, or a token that its API server accepts, of the user " + v1alpha1.MemberUserPrefix + "<name of the MemberCluster>:<ID of its credential>")
	}
	user := response.User.GetName()
	cluster, _, isMember := registration.ParseMemberUser(user)
	if !isMember {
		w.Header().Set("Connection", "close")
		return nil, forbidden(fmt.Sprintf("user %q is no member's agent: join the cluster with crossway join", user))
	}
	h.mu.RLock()
	reader := h.state.Reader(cluster)
	h.mu.RUnlock()
	if reader == nil || reader.User != user {
		w.Header().Set("Connection", "close")
		return nil, notAccepted(cluster)
	}
	if conn != nil {
		conn.established()
	}
	if !h.admit(cluster, conn) {
		return nil, apierrors.NewTooManyRequests(fmt.Sprintf("member %q makes more than %d requests per second", cluster, requestRate), 1)
	}
	return reader, nil
}

func failure(code int32, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}}
}

func forbidden(message string) *apierrors.StatusError {
	return failure(http.StatusForbidden, metav1.StatusReasonForbidden, message)
}

func notAccepted(cluster fleet.ClusterName) *apierrors.StatusError {
	return forbidden(fmt.Sprintf("MemberCluster %q does not exist or is not accepted, or this is not the credential that its status.credential names: "+
		"set spec.accepted to true, or let the cluster join with a new token (crossway token create %s)", cluster, cluster))
}

// statusOf is the Status of why a watch ended, or could not begin.
func statusOf(err error, cluster fleet.ClusterName) *apierrors.StatusError {
	if errors.Is(err, memberapi.ErrRevoked) {
		return notAccepted(cluster)
	}
	return apierrors.NewResourceExpired("this resourceVersion is too old, or of another replica of the hub, or MemberCluster \"" + string(cluster) + "\" has changed: list again")
}

// parse reads path and query of a request.
func (h *handler) parse(r *http.Request) (*request, error) {
	q := &request{}
	// /apis/<group>/<version>[/namespaces/<namespace>]/<resource>[/<name>]
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(parts) > 5 && parts[3] == "namespaces" {
		q.object.Namespace = parts[4]
		parts = append(parts[:3:3], parts[5:]...)
	}
	if len(parts) == 5 && q.object.Namespace != "" {
		q.object.Name = parts[4]
		parts = parts[:4]
	}
	for _, l := range []*memberapi.Log{h.state.Imports, h.state.Slices} { // which never change
		if len(parts) == 4 && parts[0] == "apis" && parts[1] == l.Resource.Group && parts[2] == l.Resource.Version && parts[3] == l.Resource.Name {
			q.log = l
		}
	}
	if q.log == nil {
		return nil, failure(http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("the member API has no %q: it serves serviceimports and endpointslices", r.URL.Path))
	}
	if err := metainternalversionscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, &q.options); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if faults := metainternalversionvalidation.ValidateListOptions(&q.options, true); len(faults) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", faults)
	}
	if q.options.LabelSelector != nil && !q.options.LabelSelector.Empty() || q.options.FieldSelector != nil && !q.options.FieldSelector.Empty() {
		return nil, apierrors.NewBadRequest("the member API has no selectors: list all, and select in the client")
	}
	if v := q.options.ResourceVersion; v != "" {
		position, err := memberapi.ParsePosition(v)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", v))
		}
		q.position = position
	}
	return q, nil
}

func writeStatus(w http.ResponseWriter, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	s := status.Status()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	writeJSON(w, int(s.Code), s)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		code, text = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text) // a client that is gone needs no answer
}
