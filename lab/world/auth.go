package world

import (
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strings"
)

func mechanisms(a *Auth) []string {
	if len(a.Mechanisms) == 0 {
		return []string{"PLAIN", "LOGIN"}
	}
	return a.Mechanisms
}

func (s *session) offersAuth(t *Traffic) bool {
	return t.Auth != nil && (s.tls || !t.Auth.NeedTLS)
}

// auth is RFC 4954 with the two mechanisms that submission hosts still take.
func (s *session) auth(rest string) error {
	t := s.gate.policy()
	mech, initial, _ := strings.Cut(rest, " ")
	mech = strings.ToUpper(mech)
	switch {
	case !s.offersAuth(t):
		return s.say(502, "5.5.1", "authentication is not offered")
	case s.user != "":
		return s.say(503, "5.5.1", "you have a name already")
	case !slices.Contains(mechanisms(t.Auth), mech):
		return s.say(504, "5.5.4", "mechanism not known")
	}
	var user, password string
	var ok bool
	var err error
	if mech == "PLAIN" {
		user, password, ok, err = s.plain(initial)
	} else {
		user, password, ok, err = s.login(initial)
	}
	if err != nil {
		return err
	}
	if !ok {
		return s.say(501, "5.5.2", "cannot decode that")
	}
	// Only now: a rule stands for the provider's trouble with credentials, and
	// it has to have seen some.
	if done, err := s.obey(StageAuth, s.gate.judge(StageAuth, s.client, "", nil)); done {
		s.gate.count(func(n *SMTPCounters) { n.AuthFailed++ })
		return err
	}
	want, known := t.Auth.Users[user]
	if !known || subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 {
		s.gate.count(func(n *SMTPCounters) { n.AuthFailed++ })
		return s.reply(t.Auth.Failure.or(Reply{Code: 535, Enhanced: "5.7.8", Text: "authentication credentials invalid"}))
	}
	s.gate.count(func(n *SMTPCounters) { n.Auth++ })
	s.user = user
	return s.say(235, "2.7.0", "welcome")
}

func (s *session) plain(initial string) (user, password string, ok bool, err error) {
	if initial == "" {
		if initial, err = s.ask(""); err != nil {
			return "", "", false, err
		}
	}
	text, ok := decode64(initial)
	parts := strings.Split(text, "\x00") // authorization, user, password
	if !ok || len(parts) != 3 {
		return "", "", false, nil
	}
	return parts[1], parts[2], true, nil
}

func (s *session) login(initial string) (user, password string, ok bool, err error) {
	if initial == "" {
		if initial, err = s.ask("Username:"); err != nil {
			return "", "", false, err
		}
	}
	secret, err := s.ask("Password:")
	if err != nil {
		return "", "", false, err
	}
	user, ok1 := decode64(initial)
	password, ok2 := decode64(secret)
	return user, password, ok1 && ok2, nil
}

// ask sends a challenge and reads the response.
func (s *session) ask(challenge string) (string, error) {
	if err := s.say(334, "", base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
		return "", err
	}
	return s.readLine()
}

func decode64(s string) (string, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return string(b), err == nil
}
