package hand

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/plan"
	"holdfast/record"
	"holdfast/record/vault"
)

func TestPurgesOnlyWhatTheIntentNames(t *testing.T) {
	b := newBench(t, obeys)
	two := ids(2)
	e := b.intend(plan.Delete, "deferred", two...)
	_, err := b.Postsuper(b.ctx, e.Seq, HoldWaiting, two)
	b.check(err)
	kept, _, err := b.Vault(b.ctx, e.Seq, []Copy{b.copyOf(two[0]), b.copyOf(two[1])})
	b.check(err)
	first, second := kept.Items[0].Name, kept.Items[1].Name
	b.refused("a purge by a plan to delete", b.Purge(b.ctx, e.Seq, []string{first}))

	intent, err := b.Append(b.ctx, record.Intended, 0, nil, record.IntentBody{
		Plan: strings.Repeat("ab", 32), Verb: plan.Purge, Batch: 1, Targets: []plan.Target{{Item: first}},
	})
	b.check(err)
	b.refused("an item that is not named", b.Purge(b.ctx, intent.Seq, []string{second}))
	b.refused("no item", b.Purge(b.ctx, intent.Seq, nil))
	b.refused("a path", b.Purge(b.ctx, intent.Seq, []string{"../" + first}))
	b.refused("an intent that is none", b.Purge(b.ctx, intent.Seq+7, []string{first}))
	want := func(a, c vault.State) {
		t.Helper()
		states, err := b.Items(b.ctx, kept.Items)
		if err != nil || states[0] != a || states[1] != c {
			t.Fatalf("states %v, %v", states, err)
		}
	}
	want(vault.Good, vault.Good)
	b.check(b.Purge(b.ctx, intent.Seq, []string{first}))
	want(vault.Purged, vault.Good)
	_, err = b.Append(b.ctx, record.Settled, intent.Seq, nil, record.OutcomeBody{})
	b.check(err)
	b.refused("a purge after its outcome", b.Purge(b.ctx, intent.Seq, []string{first}))

	checked, err := b.VerifyVault(b.ctx, []record.KeptBody{kept}, []string{first})
	if err != nil || len(checked) != 1 || checked[0].State != vault.Good {
		t.Errorf("%+v, %v", checked, err)
	}
	b.check(os.WriteFile(filepath.Join(b.StateDir, "vault", "planted.pack"), []byte("x"), 0o600))
	checked, err = b.VerifyVault(b.ctx, nil, nil)
	if err != nil || len(checked) != 2 || checked[1].State != vault.Planted {
		t.Errorf("%+v, %v", checked, err)
	}
}
