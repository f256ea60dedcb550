package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/memberapi"
)

// Imports that are missing and of a namespace that the member may not import go at once,
// however many they are: the agent asks before it keeps them. A hub that refuses the
// member as a whole, or has no answer, is silent.
func TestConsentWasNarrowed(t *testing.T) {
	m := newMember(t, "narrowed-shop")
	for i := range manyImports {
		m.serve(fmt.Sprint("web-", i))
	}
	_, stop := m.start()
	m.want("web-4", "import ClusterSetIP ips=1 clusters=[a b] slices=Absent [Ready=True Ready]\nservice ClusterIP tcp-80\n")
	m.settle()
	stop()
	m.Must(m.served.DeleteAllOf(t.Context(), &mcsv1beta1.ServiceImport{}, client.InNamespace(m.namespace)))
	m.taken()
	refusing := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/serviceimports") || strings.HasSuffix(r.URL.Path, "/endpointslices") {
				m.api.proxy.ServeHTTP(w, r)
			} else {
				answer(w, r)
			}
		}
	}
	m.api.answers(refusing(status(http.StatusForbidden)))
	importer, stop := m.start()
	m.Eventually("the agent has asked", func() bool {
		importer.hub.consent.mu.Lock()
		defer importer.hub.consent.mu.Unlock()
		return !importer.hub.consent.failedAt.IsZero()
	})
	m.settle()
	stop()
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("an answer that is not about the namespace takes imports: %q", writes)
	}
	m.api.answers(refusing(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		answer := memberapi.NotImported("here", m.namespace).Status()
		answer.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	m.start()
	for i := range manyImports {
		m.want(fmt.Sprint("web-", i), "")
	}
}

// After a question without an answer, nothing is asked for a while; an answer is asked
// for once for all imports of a namespace, and not for ever.
func TestQuestionsAreFew(t *testing.T) {
	now, asked, answer := time.Unix(1_800_000_000, 0), 0, error(apierrors.NewNotFound(schema.GroupResource{}, "web"))
	c := consent{now: func() time.Time { return now }, reader: interceptor.NewClient(nil, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			asked++
			return answer
		},
	})}
	want := func(when string, refused bool, questions int) {
		t.Helper()
		if got := c.refuses(t.Context(), types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("web-", asked)}); got != refused || asked != questions {
			t.Errorf("%s: refused %t after %d questions, want %t after %d", when, got, asked, refused, questions)
		}
	}
	want("missing", false, 1)
	want("another import", false, 1)
	now, answer = now.Add(askInterval), memberapi.NotImported("here", "shop")
	want("refused", true, 2)
	want("another import", true, 2)
	now, answer = now.Add(askInterval), memberapi.NotImported("here", "bank")
	want("about another namespace", false, 3)
	want("while there is no answer", false, 3)
	now, answer = now.Add(askInterval), memberapi.NotImported("here", "shop")
	want("refused again", true, 4)
}
