package lab

import (
	"testing"
	"time"
)

// TestScenarios plays every scenario that comes with the lab: its own waits are the assertions that it jams what it
// says it jams.
func TestScenarios(t *testing.T) {
	list, err := Scenarios()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			l := Up(t, s.Options)
			ctx := deadline(t, 3*time.Minute)
			if err := l.Play(ctx, s.Steps, func(what string) { t.Log(what) }); err != nil {
				t.Fatal(err)
			}
			if err := l.Cure("all"); err != nil {
				t.Fatal(err)
			}
			// A cure sets mail in motion, and one listing of a queue can miss what moves. What is lost stays missing.
			account, err := l.Account(ctx)
			for tries := 0; err == nil && !account.Whole() && tries < 10; tries++ {
				time.Sleep(2 * time.Second)
				account, err = l.Account(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Log(account)
			if !account.Whole() {
				t.Errorf("mail was lost or doubled: %s; missing %v, twice %v, strays %v", account, account.Missing, account.Twice, account.Strays)
			}
		})
	}
}
