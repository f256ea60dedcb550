// Command echo is the application that the lab's pods run. It listens on
// $PORT (8080), speaks HTTP/1.1, or where $PROTOCOL is h2c HTTP/2 alone, answers as $CLUSTER, $POD_NAMESPACE, $POD_NAME and $VERSION,
// and ends on SIGTERM after the requests that it has.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"crossway.dev/crossway/internal/lab/echo"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{
		Addr:              ":" + cmp.Or(os.Getenv("PORT"), "8080"),
		ReadHeaderTimeout: 10 * time.Second,
		Handler: echo.Handler(echo.Identity{
			Cluster:   os.Getenv("CLUSTER"),
			Namespace: os.Getenv("POD_NAMESPACE"),
			Pod:       os.Getenv("POD_NAME"),
			Version:   os.Getenv("VERSION"),
		}),
	}
	if os.Getenv("PROTOCOL") == "h2c" {
		server.Protocols = &http.Protocols{}
		server.Protocols.SetUnencryptedHTTP2(true)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Shutdown closes the listener, then idle connections, then waits.
	finish, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
