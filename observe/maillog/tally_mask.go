package maillog

import "bytes"

// Stand-ins for what varies in a reason. Each is of a kind that
// postfix.ReasonGroup takes out and that postfix.Classify sees nothing in, so
// that both can work on the masked text.
const (
	someAddress = "<@>"
	someWord    = "@"
	someNumber  = "00000"
	someTicket  = "0000000000"
	someServer  = "h[192.0.2.1]"
)

// appendMasked appends a reason with its addresses, long numbers and tickets
// taken out, and the server that Postfix names before an answer. What is left
// of ten thousand deferrals at one provider is a handful of texts.
func appendMasked(dst, text []byte) []byte {
	for hasPrefix(text, suspendedMark) {
		text = text[len(suspendedMark):]
	}
	dst, text = appendServer(dst, text)
	for len(text) > 0 {
		n, kinds := breaks(text)
		if n == 0 {
			if end := enclosed(text); end > 0 {
				dst, text = append(dst, someAddress...), text[end:]
				continue
			}
			dst, text = append(dst, text[0]), text[1:]
			continue
		}
		// Most words are just words.
		if kinds&(digit|atSign) == 0 {
			dst, text = append(dst, text[:n]...), text[n:]
			continue
		}
		dst, text = appendWord(dst, text[:n]), text[n:]
	}
	return dst
}

// appendServer reads "host NAME[ADDRESS]" and "connect to NAME[ADDRESS]" at the
// start. A server on this host keeps its name: which one it is matters.
func appendServer(dst, text []byte) (masked, rest []byte) {
	for _, verb := range []string{"host ", "connect to "} {
		after, ok := cut(text, verb)
		if !ok {
			continue
		}
		open, end := bytes.IndexByte(after, '['), bytes.IndexByte(after, ']')
		if blank := bytes.IndexByte(after, ' '); open < 0 || end < open || blank >= 0 && blank < end {
			break
		}
		if address := after[open+1 : end]; hasPrefix(address, "127.") || string(address) == "::1" || bytes.IndexByte(address, '/') >= 0 {
			end++
			return append(append(dst, verb...), after[:end]...), after[end:]
		}
		return append(append(dst, verb...), someServer...), after[end+1:]
	}
	return dst, text
}

// Kinds of bytes in the texts of reasons and complaints.
const (
	separator = 1 << iota // ends a word, as in postfix.ReasonGroup
	digit
	atSign
)

var byteKinds = func() (kinds [256]uint8) {
	for _, c := range " \t,;()<>\"'" {
		kinds[c] = separator
	}
	for _, c := range "0123456789" {
		kinds[c] = digit
	}
	kinds['@'] = atSign
	return kinds
}()

// breaks returns where the word ends that a text begins with, and of what
// kinds its bytes are.
func breaks(text []byte) (n int, kinds uint8) {
	for i, c := range text {
		kind := byteKinds[c]
		if kind == separator {
			return i, kinds
		}
		kinds |= kind
	}
	return len(text), kinds
}

// enclosed returns where "<...>" ends, 0 where there is none.
func enclosed(text []byte) int {
	if text[0] != '<' {
		return 0
	}
	if end := bytes.IndexAny(text[1:], "<>"); end >= 0 && text[1+end] == '>' {
		return end + 2
	}
	return 0
}

// appendWord appends one word, or what stands for its kind.
func appendWord(dst, word []byte) []byte {
	digits, run, longest := 0, 0, 0
	path := false
	for _, c := range word {
		switch {
		case c >= '0' && c <= '9':
			digits++
			run++
			longest = max(longest, run)
			continue
		case c == '@':
			return append(append(dst, someWord...), punctuation(word)...)
		case c == '/' || c == '=':
			path = true
		}
		run = 0
	}
	end := punctuation(word)
	if digits >= 3 && len(word)-len(end) >= 10 && !path && ticket(word[:len(word)-len(end)]) {
		return append(append(dst, someTicket...), end...)
	}
	if longest < len(someNumber) {
		return append(dst, word...)
	}
	for i := 0; i < len(word); {
		run = i
		for run < len(word) && word[run] >= '0' && word[run] <= '9' {
			run++
		}
		switch {
		case run == i:
			dst = append(dst, word[i])
			i++
			continue
		case run-i < len(someNumber):
			dst = append(dst, word[i:run]...)
		default:
			dst = append(dst, someNumber...)
		}
		i = run
	}
	return dst
}

// ticket says whether a long word with digits is one that a machine made up:
// letters and digits, and here and there a dash, a dot or an underline. Where
// there are words within, as in the name of a block list, it is not.
func ticket(word []byte) bool {
	others, letters, longest := 0, 0, 0
	for _, c := range word {
		switch {
		case c == '-' || c == '_' || c == '.':
			others++
			letters = 0
		case c >= '0' && c <= '9':
			letters = 0
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters++
			longest = max(longest, letters)
		default:
			return false
		}
	}
	return longest < 6 && others <= len(word)/4
}

// punctuation returns the punctuation that a word ends with and that is not part of it.
func punctuation(word []byte) []byte {
	n := len(word)
	for n > 0 && (word[n-1] == '.' || word[n-1] == ':' || word[n-1] == '!' || word[n-1] == '?') {
		n--
	}
	return word[n:]
}
