package agent

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/memberapi"
)

const (
	// askTimeout is how long one question to the hub may take.
	askTimeout = 5 * time.Second
	// askInterval is how long an answer counts for all imports of a namespace. After a
	// question without an answer, nothing is asked for that long.
	askInterval = 5 * time.Second
)

// consent asks the hub about imports that its lists lack, before they are kept: of a
// namespace that this member may not import any more, nothing stays, although no watch
// was open that told so. Any goroutine may use it.
type consent struct {
	reader client.Reader // of the member API, which tries once
	now    func() time.Time

	mu       sync.Mutex
	refused  map[string]bool // by namespace: the answers since askedAt
	askedAt  time.Time
	failedAt time.Time
}

// refuses tells whether the hub says that this member may not import the namespace of an
// import. Without an answer it does not.
func (c *consent) refuses(ctx context.Context, service types.NamespacedName) bool {
	c.mu.Lock()
	defer c.mu.Unlock() // also while it asks: others would ask the same
	now := c.now()
	if now.Sub(c.failedAt) < askInterval {
		return false
	}
	if c.refused == nil || now.Sub(c.askedAt) >= askInterval {
		c.refused, c.askedAt = map[string]bool{}, now
	}
	if refused, ok := c.refused[service.Namespace]; ok {
		return refused
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := c.reader.Get(ctx, service, &mcsv1beta1.ServiceImport{})
	refused := memberapi.IsNotImported(err, service.Namespace)
	if err != nil && !refused && !apierrors.IsNotFound(err) {
		c.failedAt = c.now()
		return false
	}
	c.refused[service.Namespace] = refused
	return refused
}
