package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"
)

// smtpClient injects one message after the other over a connection that it opens when it needs one. It is written for
// speed and for messages that a well-behaved library refuses to send.
type smtpClient struct {
	lab     *Lab
	load    Load
	address string
	conn    net.Conn
	r       *textproto.Reader
	w       *bufio.Writer
	user    string // the SASL user that this connection claims
}

func (c *smtpClient) close() {
	if c.conn != nil {
		c.conn.Close() // without QUIT: Postfix has answered for everything that was sent
		c.conn = nil
	}
}

// send delivers one message and settles each of its recipients. The error says why a message was not accepted for a
// reason other than an SMTP reply.
func (c *smtpClient) send(ctx context.Context, m *message) error {
	user := c.load.SASLUser
	if m.saslUser != "" {
		user = m.saslUser
	}
	if c.conn != nil && c.user != user {
		c.close() // XCLIENT speaks for the rest of a session
	}
	if err := ctx.Err(); err != nil {
		m.settle(Refused, "not tried: "+err.Error())
		return err
	}
	if c.conn == nil {
		if err := c.open(ctx, user); err != nil {
			c.close()
			m.settle(Refused, "no session: "+err.Error())
			return fmt.Errorf("open session for injection: %w", err)
		}
	}
	dotted, err := c.transaction(m)
	if err != nil {
		c.close()
		fate := Refused
		if dotted {
			fate = Unknown
		}
		m.settle(fate, err.Error())
		return fmt.Errorf("inject %q: %w", m.rcpts[0].token, err)
	}
	return nil
}

func (c *smtpClient) open(ctx context.Context, user string) error {
	side := c.load.Side
	if side == "" {
		side = WorldSide
	}
	conn, err := c.lab.Dial(ctx, side, c.address)
	if err != nil {
		return err
	}
	c.conn, c.user = conn, user
	c.r, c.w = textproto.NewReader(bufio.NewReader(conn)), bufio.NewWriterSize(conn, 64<<10)
	if err := c.greet(); err != nil {
		return err
	}
	var claims []string
	if c.load.Client != "" {
		claims = append(claims, "ADDR="+c.load.Client, "NAME=client.customer.example")
	}
	if user != "" {
		claims = append(claims, "LOGIN="+user)
	}
	if len(claims) == 0 {
		return nil
	}
	fmt.Fprintf(c.w, "XCLIENT %s\r\n", strings.Join(claims, " "))
	return c.greet() // XCLIENT starts the session over, banner included
}

func (c *smtpClient) greet() error {
	if _, err := c.reply(220); err != nil {
		return err
	}
	c.w.WriteString("EHLO client.customer.example\r\n")
	_, err := c.reply(250)
	return err
}

// reply sends what is buffered and reads one reply, of any code if want is 0.
func (c *smtpClient) reply(want int) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(time.Duration(defaultTo(c.load.ReplySeconds, 30)) * time.Second)); err != nil {
		return "", err
	}
	if err := c.w.Flush(); err != nil {
		return "", err
	}
	_, text, err := c.r.ReadResponse(want)
	return text, err
}

// transaction reports also whether the final dot was sent: from there on a failure says nothing about the message.
func (c *smtpClient) transaction(m *message) (dotted bool, err error) {
	commands := []string{"MAIL FROM:<" + m.sender + ">" + m.mailArgs()}
	for _, r := range m.rcpts {
		commands = append(commands, "RCPT TO:<"+r.addr+">"+m.rcptArgs(r))
	}
	commands = append(commands, "DATA")
	if !c.load.NoPipelining {
		c.w.WriteString(strings.Join(commands, "\r\n") + "\r\n")
	}
	var refusal *textproto.Error // of MAIL or DATA
	for i, command := range commands {
		if c.load.NoPipelining {
			c.w.WriteString(command + "\r\n")
		}
		want := 2
		if i == len(commands)-1 {
			want = 3
		}
		_, err := c.reply(want)
		said, isReply := errors.AsType[*textproto.Error](err)
		switch {
		case err == nil:
		case !isReply:
			return false, err
		case i > 0 && i <= len(m.rcpts):
			m.rcpts[i-1].fate, m.rcpts[i-1].reply = Refused, said.Error()
		case refusal == nil:
			refusal = said
		}
	}
	if refusal != nil {
		m.settle(Refused, refusal.Error())
		c.w.WriteString("RSET\r\n")
		_, err := c.reply(0)
		return false, err
	}
	c.w.Write(stuffed(m.content))
	c.w.WriteString(".\r\n")
	text, err := c.reply(2)
	if said, ok := errors.AsType[*textproto.Error](err); ok {
		m.settle(Refused, said.Error())
		return true, nil
	}
	if err != nil {
		return true, err
	}
	if _, id, ok := strings.Cut(text, "queued as "); ok {
		m.queueID = strings.TrimSpace(id)
	}
	m.settle(Accepted, "")
	return true, nil
}

func (m *message) mailArgs() string {
	var args string
	if m.utf8 {
		args += " SMTPUTF8"
	}
	if m.eightBit || m.utf8 {
		args += " BODY=8BITMIME"
	}
	if m.notify != "" {
		args += " RET=HDRS ENVID=" + m.rcpts[0].token
	}
	return args
}

func (m *message) rcptArgs(r rcpt) string {
	if m.notify == "" {
		return ""
	}
	return " NOTIFY=" + m.notify + " ORCPT=rfc822;" + r.addr
}

// stuffed doubles leading dots (RFC 5321, 4.5.2) and sees to it that the last line is whole.
func stuffed(content []byte) []byte {
	content = bytes.ReplaceAll(content, []byte("\r\n."), []byte("\r\n.."))
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		content = append(content, '\r', '\n')
	}
	return content
}
