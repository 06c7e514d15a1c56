package plan_test

import (
	"fmt"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
)

func ExampleSelector() {
	s := plan.Selector{
		Queues:    []postfix.Queue{postfix.Deferred},
		Domains:   []string{"example.com", ".example.com"},
		Causes:    []postfix.Cause{postfix.DNS},
		OlderThan: plan.Duration(90 * time.Minute),
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m, err := s.Compile(at)
	if err != nil {
		fmt.Println(err)
		return
	}
	in, err := m.Match(&postfix.Message{
		Queue: postfix.Deferred, ID: "9FBF1140142", Arrival: at.Add(-2 * time.Hour),
		Recipients: []postfix.Recipient{{Address: "kim@mail.example.com", Cause: postfix.DNS}},
	}, nil)
	fmt.Println(in, err)
	fmt.Println(s)
	// Output:
	// true <nil>
	// --queue deferred --domain .example.com --domain example.com --cause dns --older-than 1h30m
}
