package act

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"holdfast/postfix"
)

const flushPatience = 10 * time.Second

// flush asks Postfix to try one message now, which is what `postqueue -i` does
// and costs no process: a request to the flush service (flush/flush.c). It also
// wakes a destination that the queue manager holds dead, for this message. The
// answer says only that the request was understood.
func (e *engine) flush(ctx context.Context, id postfix.QueueID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushPatience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(e.Instance.QueueDir, "public", "flush"))
	if err != nil {
		return fmt.Errorf("ask flush service: %w", err)
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("ask flush service: %w", err)
	}
	request := "request\x00send_file\x00queue_id\x00" + string(id) + "\x00\x00"
	if _, err := io.WriteString(conn, request); err != nil {
		return fmt.Errorf("ask flush service: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("ask flush service: %w", err)
	case !strings.Contains(string(answer), "status\x000\x00"):
		return errors.New("ask flush service: it did not take the request")
	}
	return nil
}
