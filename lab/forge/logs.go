package forge

import (
	"fmt"
	"strings"
)

// logs returns the defer and the bounce log of m, nil where there is none.
func logs(m *Message, offsets []int64) (deferLog, bounceLog []byte) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.Deferred != nil {
			deferLog = appendEntry(deferLog, r, r.Deferred, offsets[i], "delayed", "4.0.0")
		}
		if r.Bounced != nil {
			bounceLog = appendEntry(bounceLog, r, r.Bounced, offsets[i], "failed", "5.0.0")
		}
	}
	return deferLog, bounceLog
}

// appendEntry writes one entry as bounce/bounce_append_service.c does: an
// empty line, the old form, the attributes, an empty line.
func appendEntry(dst []byte, r *Recipient, why *Reason, offset int64, action, status string) []byte {
	var b strings.Builder
	address := Quote(r.Address)
	if address == "" {
		address = "<>"
	}
	b.WriteByte('\n')
	if !why.NewFormOnly {
		fmt.Fprintf(&b, "<%s>: %s\n", strings.Trim(address, "<>"), why.Text)
	}
	fmt.Fprintf(&b, "recipient=%s\n", address)
	if r.Original != "" && !strings.EqualFold(r.Original, r.Address) {
		fmt.Fprintf(&b, "original_recipient=%s\n", Quote(r.Original))
	}
	fmt.Fprintf(&b, "offset=%d\n", offset)
	fmt.Fprintf(&b, "dsn_orig_rcpt=rfc822;%s\n", Quote(orElse(r.Original, r.Address)))
	if r.Notify != 0 {
		fmt.Fprintf(&b, "notify_flags=%d\n", r.Notify)
	}
	fmt.Fprintf(&b, "status=%s\naction=%s\n", orElse(why.Status, status), action)
	if why.Host != "" {
		fmt.Fprintf(&b, "diag_type=smtp\ndiag_text=%s\n", orElse(why.Reply, why.Text))
		fmt.Fprintf(&b, "mta_type=dns\nmta_mname=%s\n", why.Host)
	}
	fmt.Fprintf(&b, "reason=%s\n\n", why.Text)
	return append(dst, b.String()...)
}

// Quote turns an address from Postfix's internal form into the quoted form of
// its logs and of showq (quote_822_local in global/): a local part that is no
// dot-atom goes into quotes, a quote or backslash in it behind a backslash.
func Quote(address string) string {
	at := strings.LastIndexByte(address, '@')
	local, domain := address, ""
	if at >= 0 {
		local, domain = address[:at], address[at:]
	}
	if address == "" || isDotAtom(local) {
		return address
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' || c == '\r' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String() + domain
}

func isDotAtom(local string) bool {
	if local == "" || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return false
	}
	for i := range len(local) {
		c := local[i]
		if c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\".[]`, c) >= 0 && c != '.' {
			return false
		}
	}
	return true
}
