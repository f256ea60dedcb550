package server

import (
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Limits of one pool. Its edges share them, so a stolen certificate of one pool
// takes nothing from the others: the numbers bound the hub's memory and time, and
// are far above what edges of a pool need that all reconnect at once.
const (
	// maxRequest bounds a request. The largest is an edge's first for load
	// assignments: each is named twice, with a version of the shares in force. For
	// 10,000 of them, with names of 150 bytes and versions of 400, that is 7 MB.
	maxRequest = 8 << 20
	// Requests beyond smallRequest are firsts of their kind. maxLargeRequests is how
	// many of them a configuration stream may have: one for each kind.
	smallRequest, maxLargeRequests = 1 << 20, 6
	// Requests beyond quickRequest are parsed and processed one at a time.
	quickRequest = 64 << 10
	// Parsed, a field of a message costs up to some 200 bytes, and as little as two on
	// the wire.
	maxFields, maxReportFields = 150_000, 500_000

	// streamRate is how many streams per second a pool may open, in the long run. The
	// burst is all its edges with both of their streams, and some that are dead. Streams
	// of usage have a rate of their own.
	streamRate, streamWait = 2, 5 * time.Second
	usageStreamRate        = 16
	// refusalDelay slows down who opens streams only to be refused.
	refusalDelay = 250 * time.Millisecond
	// firstRequestTimeout is how long a stream may be silent before it says who it is.
	firstRequestTimeout = 10 * time.Second
	// sendTimeout is how long a response may wait for an edge that does not read. Its
	// connection is alive, or keepalive would have ended it sooner.
	sendTimeout = 15 * time.Second

	// workRate is the part of a processor that requests of one pool may take in the
	// long run, and workBurst what they may take at once.
	workRate, workBurst = 0.3, 3 * time.Second
	// requestCost is what a request costs beside the time to parse and process it.
	requestCost = 20 * time.Microsecond

	// Log lines that an edge causes, for each pool.
	logRate, logBurst = 2, 200
)

// quota is what the edges of one pool may still use.
type quota struct {
	maxEdges int
	streams  *rate.Limiter
	// usageStreams are those of usage, which are many and may wait.
	usageStreams *rate.Limiter
	work         *rate.Limiter // in nanoseconds
	log          *rate.Limiter
	renewals     *renewals
	// Turns: of a large request, and of a response that is made. What all edges of a
	// pool cause together then takes one processor at most, and not all.
	large, response chan struct{}
}

func newQuota(maxEdges int) quota {
	return quota{
		maxEdges:     maxEdges,
		streams:      rate.NewLimiter(streamRate, maxStreams(maxEdges)),
		usageStreams: rate.NewLimiter(usageStreamRate, maxUsageStreams(maxEdges)),
		work:         rate.NewLimiter(workRate*rate.Limit(time.Second), int(workBurst)),
		log:          rate.NewLimiter(logRate, logBurst),
		renewals:     newRenewals(),
		large:        make(chan struct{}, 1),
		response:     make(chan struct{}, 1),
	}
}

// maxStreams is how many streams a pool may have open: two for each edge, and some
// whose edge has another by now.
func maxStreams(maxEdges int) int { return 2*maxEdges + 32 }

// maxUsageStreams is how many streams of usage a pool may have open: one for each
// worker of an Envoy.
func maxUsageStreams(maxEdges int) int { return 16 * maxEdges }

// next receives one request, parses it and has it handled. It returns once the
// pool has time for another one.
func (open *session) next(g grpc.ServerStream, request proto.Message, handle func() error) error {
	var f frame
	if err := g.RecvMsg(&f); err != nil {
		return err
	}
	defer open.connection.finished(len(f))
	if len(f) > smallRequest && open.service == configuration {
		if open.large++; open.large > maxLargeRequests {
			return status.Errorf(codes.ResourceExhausted, "a request of %d bytes: only the first one of a type may have more than %d", len(f), smallRequest)
		}
	}
	if err := open.handle(g, f, request, handle); err != nil {
		return err
	}
	spent := min(int(open.spent), int(workBurst))
	open.spent = 0
	return open.pool.quota.work.WaitN(g.Context(), spent)
}

func (open *session) handle(g grpc.ServerStream, f frame, request proto.Message, handle func() error) error {
	if len(f) > quickRequest {
		select {
		case open.pool.quota.large <- struct{}{}:
			defer func() { <-open.pool.quota.large }()
		case <-g.Context().Done():
			return g.Context().Err()
		}
	}
	began, fields := time.Now(), maxFields
	if open.service == load {
		fields = maxReportFields
	}
	if err := f.parse(request, fields); err != nil {
		return err
	}
	open.spent += requestCost + time.Since(began)
	if open.service == load && len(f) > smallRequest { // others cost little: what an edge does not use it does not report
		began = time.Now()
		defer func() { open.spent += time.Since(began) }()
	}
	return handle()
}
