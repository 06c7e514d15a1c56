package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// door is the set of listening sockets of one peer, with the sessions that
// came in through them. It opens and shuts as often as asked, at the same
// addresses: a port that was chosen by the kernel is kept.
type door struct {
	serve func(ctx context.Context, conn net.Conn, addr int) // addr: index into addrs

	life   sync.Mutex // serializes open, shut and move
	addrs  []string
	bound  []string
	cancel context.CancelFunc

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	wg        sync.WaitGroup
}

func newDoor(addrs []string, serve func(ctx context.Context, conn net.Conn, addr int)) *door {
	return &door{serve: serve, addrs: addrs, conns: make(map[net.Conn]struct{})}
}

// open binds every address, or none.
func (d *door) open() error {
	d.life.Lock()
	defer d.life.Unlock()
	return d.openLocked()
}

func (d *door) openLocked() error {
	if d.cancel != nil {
		return nil
	}
	addrs := d.bound
	if addrs == nil {
		addrs = d.addrs
	}
	var listeners []net.Listener
	for _, a := range addrs {
		ln, err := listenAt(a)
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			return fmt.Errorf("listen at %q: %w", a, err)
		}
		listeners = append(listeners, ln)
	}
	ctx, cancel := context.WithCancel(context.Background())
	bound := make([]string, len(listeners))
	for i, ln := range listeners {
		bound[i] = addrs[i]
		if _, unix := unixPath(addrs[i]); !unix {
			bound[i] = ln.Addr().String()
		}
	}
	d.mu.Lock()
	d.listeners, d.bound, d.cancel = listeners, bound, cancel
	d.mu.Unlock()
	for i, ln := range listeners {
		d.wg.Go(func() { d.accept(ctx, ln, i) })
	}
	return nil
}

// shut closes the port and ends the sessions, and returns when they have
// ended. A session in the middle of an answer finishes that answer: a delivery
// that stands in the ledger is still acknowledged, so that taking a provider
// down never looks like a lost 250 by itself.
func (d *door) shut() {
	d.life.Lock()
	defer d.life.Unlock()
	d.shutLocked()
}

func (d *door) shutLocked() {
	if d.cancel == nil {
		return
	}
	d.cancel()
	d.mu.Lock()
	for _, ln := range d.listeners {
		_ = ln.Close() // it is closed whatever it says
	}
	d.listeners, d.cancel = nil, nil
	for c := range d.conns {
		expire(c)
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// move changes the addresses; an open door stays open.
func (d *door) move(addrs []string) error {
	d.life.Lock()
	defer d.life.Unlock()
	if slices.Equal(addrs, d.addrs) {
		return nil
	}
	open := d.cancel != nil
	d.shutLocked()
	d.mu.Lock()
	d.addrs, d.bound = addrs, nil
	d.mu.Unlock()
	if !open {
		return nil
	}
	return d.openLocked()
}

// set makes the door as a configuration wants it.
func (d *door) set(addrs []string, down bool) error {
	if down {
		d.shut()
	}
	if err := d.move(addrs); err != nil || down {
		return err
	}
	return d.open()
}

// listening returns the addresses that are open now.
func (d *door) listening() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel == nil {
		return nil
	}
	return slices.Clone(d.bound)
}

// expire makes reads fail at once and gives a last answer a second to leave.
func expire(c net.Conn) {
	_ = c.SetReadDeadline(time.Unix(1, 0))                  // only a closed connection
	_ = c.SetWriteDeadline(time.Now().Add(time.Second * 1)) // has no deadlines
}

func (d *door) accept(ctx context.Context, ln net.Listener, addr int) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors: as a real server does, wait for some.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		d.mu.Lock()
		d.conns[conn] = struct{}{}
		d.mu.Unlock()
		if ctx.Err() != nil {
			expire(conn)
		}
		d.wg.Go(func() {
			defer d.forget(conn)
			d.serve(ctx, conn, addr)
		})
	}
}

func (d *door) forget(conn net.Conn) {
	_ = conn.Close() // the session may have done it
	d.mu.Lock()
	delete(d.conns, conn)
	d.mu.Unlock()
}

// unixPath tells a socket path ("unix:/run/x") from a network address.
func unixPath(addr string) (string, bool) { return strings.CutPrefix(addr, "unix:") }

func listenAt(addr string) (net.Listener, error) {
	path, ok := unixPath(addr)
	if !ok {
		return net.Listen("tcp", addr)
	}
	// A stale socket of a killed world would block its successor.
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Postfix connects as its own user; what guards the socket is its directory.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// withPort gives an address its port if it has none.
func withPort(addr, port string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), port)
}

// checkListen wants a numeric address, since the world cannot ask itself, or a
// socket path.
func checkListen(addr string) error {
	if path, ok := unixPath(addr); ok {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("listen address %q: the path is not absolute", addr)
		}
		return nil
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return fmt.Errorf("listen address %q: want ADDRESS:PORT or unix:/PATH", addr)
	}
	return nil
}

// clientOf is the peer's address without its port, "unix" for a local socket.
func clientOf(c net.Conn) string {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return "unix"
	}
	return ap.Addr().Unmap().String()
}
