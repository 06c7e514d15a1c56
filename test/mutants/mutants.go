package main

// mutant is one mistake.
type mutant struct {
	name string
	// file is where, below the root of the tree; old, which stands there once,
	// becomes new.
	file, old, new string
	// tests are arguments of go test: what should notice.
	tests []string
}

func mutants() []mutant {
	return []mutant{
		{
			name: "no-fsync-of-an-appended-file", file: "durable/append.go",
			old: "return a.file.Sync()", new: "return nil",
			tests: []string{"./durable"},
		},
		{
			name: "no-fsync-of-a-created-file", file: "durable/create.go",
			old: "err = c.file.Sync()", new: "err = nil",
			tests: []string{"./durable"},
		},
		{
			name: "no-fsync-of-the-directory", file: "durable/create.go",
			old: "err := c.dir.Sync(); err != nil", new: "err := error(nil); err != nil",
			tests: []string{"./durable"},
		},
		{
			name: "intent-behind-the-act", file: "act/hand/server.go",
			old: "	e, err := s.log.Append(kind, ref, files, detail)\n",
			new: `	if kind == record.Intended && in.verb == plan.Hold {
		var ids []postfix.QueueID
		for id := range in.inodes {
			ids = append(ids, id)
		}
		_, _ = postcmd.Run(context.Background(), postcmd.Call{
			CommandDir: s.CommandDir, ConfigDir: s.ConfigDir, Op: postcmd.HoldWaiting, IDs: ids, Patience: s.Patience,
		})
	}
	e, err := s.log.Append(kind, ref, files, detail)
`,
			tests: []string{"./test/crash", "-run", "TestEveryFailingCall/hold"},
		},
		{
			name: "intent-not-read-back", file: "act/hand/server.go",
			old: "return in, s.log.ReadBack(in.entry)", new: "return in, nil",
			tests: []string{"./act/hand"},
		},
		{
			name: "vault-not-demanded", file: "act/hand/server.go",
			old: "return refused(\"%q is not in the vault\", id)", new: "return nil",
			tests: []string{"./act/hand"},
		},
		{
			name: "vault-skipped", file: "record/vault/vault.go",
			old: "if err := file.Commit(); err != nil {", new: "if err := file.Discard(); err != nil {",
			tests: []string{"./record/vault", "./act/hand"},
		},
		{
			name: "content-not-compared", file: "act/hand/server.go",
			old: "if hex.EncodeToString(sum.Sum(nil)) != want.Sum {", new: "if false {",
			tests: []string{"./act/hand"},
		},
		{
			name: "fingerprint-not-compared", file: "act/engine.go",
			old: "if requeued || k.Matches(f.Fingerprint) {", new: "if requeued || f.ID == k.ID {",
			tests: []string{"./act"},
		},
		{
			name: "postsuper-believed", file: "act/hold.go",
			old:   "	case k.in(postfix.Hold) && !k.named && !b.fresh(k.seen):\n",
			new:   "	case k.named:\n		k.settleAs(record.Done, \"\")\n		k.out.Held = true\n	case k.in(postfix.Hold) && !k.named && !b.fresh(k.seen):\n",
			tests: []string{"./act", "-run", "Hold"},
		},
		{
			name: "delete-without-its-queue", file: "act/internal/postcmd/postcmd.go",
			old: `"-d", "-", "hold"`, new: `"-d", "-"`,
			tests: []string{"./act/internal/postcmd"},
		},
		{
			name: "empty-selection-runs", file: "act/internal/postcmd/postcmd.go",
			old: "if input.Len() == 0 {", new: "if false {",
			tests: []string{"./act/internal/postcmd"},
		},
		{
			name: "released-under-the-same-qmgr", file: "act/release.go",
			old: "case ours && (past.Qmgr == nil || sameProcess(*past.Qmgr, *qmgr)),", new: "case false,",
			tests: []string{"./act"},
		},
		{
			name: "hold-of-others-released", file: "act/secure.go",
			old: "!ours && !k.taken {", new: "!ours && !k.taken && false {",
			tests: []string{"./act"},
		},
		{
			name: "all-released-at-once", file: "act/release.go",
			old: "(h.proven || turn == 0)", new: "(h.proven || turn >= 0)",
			tests: []string{"./act"},
		},
		{
			name: "restored-is-called-failed", file: "act/respool.go",
			old: "		k.out.Text = err.Error()\n", new: "		k.spare(record.Failed, err.Error())\n",
			tests: []string{"./test/crash", "-run", "TestEveryFailingCall/restore"},
		},
		{
			name: "exchanged-copy-restored", file: "act/respool.go",
			old: "(c == nil || c.Sum != sum)", new: "(c == nil || c.Sum != sum && c == nil)",
			tests: []string{"./act"},
		},
		{
			name: "lock-not-handed-down", file: "act/hand/server.go",
			old: "Inherit: []*os.File{s.lock.File()}", new: "Inherit: []*os.File(nil)",
			tests: []string{"./act/hand"},
		},
		{
			name: "hold-known-by-its-id", file: "record/ledger.go",
			old: "if !ours || !h.is(message) {", new: "if !ours {",
			tests: []string{"./record"},
		},
		{
			name: "first-place-believed", file: "observe/spool/find.go",
			old: "met[0].Inode == want.Inode && ", new: "",
			tests: []string{"./observe/spool"},
		},
		{
			name: "due-done-twice", file: "operate/due.go",
			old: "if saved[i].Due == d.Entry {", new: "if false {",
			tests: []string{"./operate"},
		},
		{
			name: "anybody's-state", file: "act/hand/server.go",
			old: "if int(st.Uid) != os.Geteuid() && st.Uid != 0 || others {", new: "if false && others {",
			tests: []string{"./test/crash", "-run", "TestLinksInTheState"},
		},
		{
			name: "hang-up-ends-a-run", file: "cmd/holdfast/change.go",
			old: "signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)", new: "signal.Ignore(syscall.SIGPIPE)",
			tests: []string{"./test/crash", "-run", "TestInterruptedAndHungUp"},
		},
		{
			name: "pack-not-synced", file: "durable/create.go",
			old: "err = c.file.Sync()", new: "err = error(nil)",
			tests: []string{"./test/crash", "-run", "TestPowerCuts/ext4_delete"},
		},
	}
}
