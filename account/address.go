package account

import "strings"

// addressKey brings an address of the queue and one of the log to one form. In
// the queue it is bare; in the log it is quoted where it needs to be (RFC 5321
// 4.1.2, since Postfix 3.5), and what is not printable there is a question
// mark (util/printable.c). Bytes beyond ASCII are, or are not, according to
// smtputf8_enable, so that any run of such bytes is taken for one mark: two
// recipients of one message that differ in nothing else are then told apart by
// their number only. So are those that differ in quotes.
func addressKey(address string) string {
	plain := true
	for i := range len(address) {
		if c := address[i]; c < ' ' || c > '~' || c == '?' || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return address
	}
	var b strings.Builder
	b.Grow(len(address))
	marked := false
	for i := 0; i < len(address); i++ {
		c := address[i]
		if c == '"' || c == '\\' {
			continue
		}
		if odd := c < ' ' || c > '~' || c == '?'; odd {
			if !marked {
				b.WriteByte('?')
			}
			marked = true
			continue
		}
		b.WriteByte(c)
		marked = false
	}
	return b.String()
}
