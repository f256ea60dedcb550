package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// listenFD is the socket on which the program inside asks the program as it was
// called, which is still in the machine's network, to listen there. Each request
// is an address, each answer a listening socket or an error's text.
const listenFD = 3

// serveListen answers the requests, and returns the other end of the socket.
func serveListen() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for listeners: %w", err)
	}
	own, err := seqpacket(fds[0])
	if err != nil {
		return nil, err
	}
	go func() {
		defer own.Close()
		request := make([]byte, 256)
		for {
			n, err := own.Read(request)
			if err != nil {
				return // the program inside has ended
			}
			answerListen(own, string(request[:n]))
		}
	}()
	return os.NewFile(uintptr(fds[1]), "listen"), nil
}

func answerListen(conn *net.UnixConn, address string) {
	var rights []byte
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err == nil {
		defer l.Close() // the program inside has it now
		var f *os.File
		if f, err = l.(*net.TCPListener).File(); err == nil {
			defer f.Close()
			rights = unix.UnixRights(int(f.Fd()))
		}
	}
	text := "ok"
	if err != nil {
		text = err.Error()
	}
	_, _, _ = conn.WriteMsgUnix([]byte(text), rights, nil) // it has ended meanwhile
}

var listenMutex sync.Mutex // a request and its answer are one step

// Listen listens on a TCP address (host:port) of the machine, although the
// program is not in the machine's network any more.
func Listen(address string) (net.Listener, error) {
	listenMutex.Lock()
	defer listenMutex.Unlock()
	fd, err := unix.FcntlInt(listenFD, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s of the machine: %w", address, err)
	}
	conn, err := seqpacket(fd)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(address)); err != nil {
		return nil, fmt.Errorf("listen on %s of the machine: %w", address, err)
	}
	text, rights := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
	n, rightsLength, _, _, err := conn.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, fmt.Errorf("listen on %s of the machine: %w", address, err)
	}
	if rightsLength == 0 {
		return nil, errors.New(string(text[:n]))
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rightsLength])
	if err != nil {
		return nil, err
	}
	received, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(received[0]), address)
	defer f.Close()
	return net.FileListener(f)
}

// seqpacket takes over a socket of serveListen.
func seqpacket(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "listen")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket for listeners: %w", err)
	}
	return conn.(*net.UnixConn), nil
}
