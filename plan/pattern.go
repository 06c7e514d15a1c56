package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"holdfast/postfix"
)

// maxPattern bounds one value. Postfix's own limit for a line of SMTP is half
// of it (line_length_limit).
const maxPattern = 4096

// checkValue refuses what no condition can mean.
func checkValue(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return errEmpty
	case len(s) > maxPattern:
		return fmt.Errorf("longer than %d bytes", maxPattern)
	case !utf8.ValidString(s):
		return errors.New("not valid UTF-8; * stands for any bytes")
	}
	return nil
}

// fold takes away the difference of case. Bytes that are no UTF-8 stay what
// they are: strings.ToLower would make them all the same.
func fold(s string) string {
	ascii := true
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			ascii = false
			break
		}
	}
	if ascii || utf8.ValidString(s) {
		return strings.ToLower(s)
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// glob is a text cut at its stars.
type glob []string

// parseGlob cuts a pattern at each star that no backslash stands before. A
// pattern without stars gives one part: the literal text.
func parseGlob(s string) glob {
	var g glob
	var part strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '\\'):
			i++
			part.WriteByte(s[i])
		case s[i] == '*':
			g = append(g, part.String())
			part.Reset()
		default:
			part.WriteByte(s[i])
		}
	}
	return append(g, part.String())
}

func (g glob) match(s string) bool {
	last := len(g) - 1
	if last == 0 {
		return s == g[0]
	}
	if len(s) < len(g[0])+len(g[last]) || !strings.HasPrefix(s, g[0]) || !strings.HasSuffix(s, g[last]) {
		return false
	}
	s = s[len(g[0]) : len(s)-len(g[last])]
	// The leftmost place is always right: it leaves most for the parts behind.
	for _, part := range g[1:last] {
		at := strings.Index(s, part)
		if at < 0 {
			return false
		}
		s = s[at+len(part):]
	}
	return true
}

// nameSet matches names: whole, below a domain, or by a glob. Names that are
// given by the thousand cost one look into a map.
type nameSet struct {
	exact, below map[string]struct{}
	globs        []glob
}

func (n *nameSet) add(pattern string) {
	g := parseGlob(fold(pattern))
	if len(g) > 1 {
		n.globs = append(n.globs, g)
		return
	}
	into := &n.exact
	name := g[0]
	if strings.HasPrefix(name, ".") {
		into, name = &n.below, name[1:]
	}
	if *into == nil {
		*into = make(map[string]struct{})
	}
	for _, form := range nameForms(name) {
		(*into)[form] = struct{}{}
	}
}

// nameForms returns a name with its other form, where it is international: a
// queue has U-labels from SMTPUTF8 clients and A-labels from all others.
func nameForms(name string) []string {
	forms := []string{name}
	if a, err := idna.Lookup.ToASCII(name); err == nil && a != name {
		forms = append(forms, a)
	}
	if strings.Contains(name, "xn--") {
		if u, err := idna.Lookup.ToUnicode(name); err == nil && u != name {
			forms = append(forms, u)
		}
	}
	return forms
}

func (n *nameSet) match(name string) bool {
	if _, ok := n.exact[name]; ok {
		return true
	}
	if len(n.below) > 0 {
		for rest := name; ; {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				break
			}
			rest = rest[dot+1:]
			if _, ok := n.below[rest]; ok {
				return true
			}
		}
	}
	for _, g := range n.globs {
		if g.match(name) {
			return true
		}
	}
	return false
}

// domainSet reads patterns of Selector.Domains.
func domainSet(flag string, patterns []string) (*nameSet, error) {
	n := new(nameSet)
	for _, p := range patterns {
		err := checkValue(p)
		switch {
		case err != nil:
		case strings.Contains(p, "@"):
			err = errors.New("an address, not a domain; for addresses there are --sender and --recipient")
		case strings.Trim(p, ".") == "":
			err = errors.New("no name")
		}
		if err != nil {
			return nil, mistake(flag, p, err)
		}
		n.add(strings.TrimSuffix(p, "."))
	}
	return n, nil
}

// loginSet reads patterns that are no names of hosts: a leading dot means
// itself.
func loginSet(flag string, patterns []string) (*nameSet, error) {
	n := &nameSet{exact: make(map[string]struct{})}
	for _, p := range patterns {
		if err := checkValue(p); err != nil {
			return nil, mistake(flag, p, err)
		}
		if g := parseGlob(fold(p)); len(g) > 1 {
			n.globs = append(n.globs, g)
		} else {
			n.exact[g[0]] = struct{}{}
		}
	}
	return n, nil
}

// addressSet matches envelope addresses.
type addressSet struct {
	whole   nameSet
	domains nameSet
}

func addressSetOf(flag string, patterns []string) (*addressSet, error) {
	a := &addressSet{whole: nameSet{exact: make(map[string]struct{})}}
	for _, p := range patterns {
		if err := a.add(p); err != nil {
			return nil, mistake(flag, p, err)
		}
	}
	return a, nil
}

func (a *addressSet) add(pattern string) error {
	if err := checkValue(pattern); err != nil {
		return err
	}
	if strings.HasPrefix(pattern, "<") && strings.HasSuffix(pattern, ">") {
		pattern = pattern[1 : len(pattern)-1]
	}
	if domain, ok := strings.CutPrefix(pattern, "@"); ok {
		if strings.Trim(domain, ".") == "" || strings.Contains(domain, "@") {
			return errors.New("no domain behind the @")
		}
		a.domains.add(strings.TrimSuffix(domain, "."))
		return nil
	}
	g := parseGlob(fold(pattern))
	if len(g) > 1 {
		a.whole.globs = append(a.whole.globs, g)
		return nil
	}
	at := strings.LastIndexByte(g[0], '@')
	if at < 0 {
		a.whole.exact[g[0]] = struct{}{}
		return nil
	}
	for _, domain := range nameForms(g[0][at+1:]) {
		a.whole.exact[g[0][:at+1]+domain] = struct{}{}
	}
	return nil
}

func (a *addressSet) match(address string) bool {
	folded := fold(address)
	if a.whole.match(folded) {
		return true
	}
	at := strings.LastIndexByte(folded, '@')
	return at >= 0 && a.domains.match(folded[at+1:])
}

// hopSet matches next hops, see Selector.NextHops.
type hopSet struct{ whole, parts nameSet }

func hopSetOf(flag string, patterns []string) (*hopSet, error) {
	h := new(hopSet)
	for _, p := range patterns {
		if err := checkValue(p); err != nil {
			return nil, mistake(flag, p, err)
		}
		if strings.ContainsAny(p, ":[]") {
			h.whole.add(p)
		} else {
			h.parts.add(strings.TrimSuffix(p, "."))
		}
	}
	return h, nil
}

func (h *hopSet) match(hop string) bool {
	if hop == "" {
		return false
	}
	hop = fold(hop)
	if h.whole.match(hop) {
		return true
	}
	for hop != "" {
		var part string
		// The colons of an IPv6 address are inside of brackets.
		if open, rest, ok := cutBracket(hop); ok {
			part, hop = open, strings.TrimPrefix(rest, ":")
		} else {
			part, hop, _ = strings.Cut(hop, ":")
		}
		if h.parts.match(part) {
			return true
		}
	}
	return false
}

func cutBracket(s string) (inside, rest string, ok bool) {
	if !strings.HasPrefix(s, "[") {
		return "", s, false
	}
	return strings.Cut(s[1:], "]")
}

// clientSet matches where a message came from.
type clientSet struct {
	names    nameSet
	networks []netip.Prefix
}

func clientSetOf(flag string, patterns []string) (*clientSet, error) {
	c := new(clientSet)
	for _, p := range patterns {
		if err := c.add(p); err != nil {
			return nil, mistake(flag, p, err)
		}
	}
	return c, nil
}

func (c *clientSet) add(p string) error {
	if err := checkValue(p); err != nil {
		return err
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(p, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		addr = addr.Unmap()
		c.networks = append(c.networks, netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	if strings.Contains(p, "/") {
		network, err := netip.ParsePrefix(p)
		if err != nil {
			return errors.New("not a network")
		}
		if network != network.Masked() {
			return fmt.Errorf("bits are set behind the network; did you mean %s?", network.Masked())
		}
		c.networks = append(c.networks, network)
		return nil
	}
	// What looks like an address and is none would be a name that nobody has.
	if strings.Trim(p, "0123456789.") == "" || strings.Contains(p, ":") {
		return errors.New("not an IP address")
	}
	c.names.add(strings.TrimSuffix(p, "."))
	return nil
}

func (c *clientSet) match(client postfix.Client) bool {
	if client.Name != "" && c.names.match(fold(client.Name)) {
		return true
	}
	if len(c.networks) == 0 || client.Address == "" {
		return false
	}
	addr, err := netip.ParseAddr(client.Address)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, network := range c.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// textPattern is a part of a text, or a regular expression.
type textPattern struct {
	part  string // in lower case
	ascii bool
	re    *regexp.Regexp
}

func parseText(s string) (textPattern, error) {
	if err := checkValue(s); err != nil {
		return textPattern{}, err
	}
	if len(s) >= 2 && s[0] == '/' && s[len(s)-1] == '/' {
		if s == "//" {
			return textPattern{}, errors.New("no regular expression between the slashes")
		}
		re, err := regexp.Compile("(?i)" + s[1:len(s)-1])
		if err != nil {
			return textPattern{}, fmt.Errorf("no regular expression: %w", err)
		}
		return textPattern{re: re}, nil
	}
	p := textPattern{part: fold(s), ascii: true}
	for i := range len(p.part) {
		p.ascii = p.ascii && p.part[i] < utf8.RuneSelf
	}
	return p, nil
}

func textPatterns(flag string, values []string) ([]textPattern, error) {
	patterns := make([]textPattern, 0, len(values))
	for _, v := range values {
		p, err := parseText(v)
		if err != nil {
			return nil, mistake(flag, v, err)
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func (p textPattern) match(s string) bool {
	switch {
	case p.re != nil:
		return p.re.MatchString(s)
	case p.ascii:
		return containsFold(s, p.part)
	}
	return strings.Contains(fold(s), p.part)
}

// containsFold finds a text of ASCII in lower case. Folding the whole reason
// first would allocate once a recipient.
func containsFold(s, lower string) bool {
	for i := 0; i+len(lower) <= len(s); i++ {
		k := 0
		for k < len(lower) {
			c := s[i+k]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c != lower[k] {
				break
			}
			k++
		}
		if k == len(lower) {
			return true
		}
	}
	return false
}

// headerPattern is one value of Selector.Headers.
type headerPattern struct {
	name string // in lower case
	text *textPattern
}

func parseHeader(s string) (headerPattern, error) {
	if err := checkValue(s); err != nil {
		return headerPattern{}, err
	}
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return headerPattern{}, errors.New("no colon behind the name")
	}
	name = strings.TrimRight(name, " \t")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return headerPattern{}, fmt.Errorf("%s cannot be the name of a header", strconv.QuoteToASCII(clip(name)))
	}
	p := headerPattern{name: strings.ToLower(name)}
	if value = strings.TrimSpace(value); value != "" {
		text, err := parseText(value)
		if err != nil {
			return headerPattern{}, err
		}
		p.text = &text
	}
	return p, nil
}

func (p headerPattern) match(h Header) bool {
	return strings.EqualFold(strings.TrimRight(h.Name, " \t"), p.name) && (p.text == nil || p.text.match(h.Value))
}
