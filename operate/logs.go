package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/opener"
	"holdfast/observe/spool"
)

// unprivileged is who reads logs where there is no Postfix to say whom its mail
// belongs to: a log may come from another host.
const unprivileged = "nobody"

// SummarizeLogs sums up log files; "-" is stdin. As root it leaves the opening
// to an opener and reads them as nobody: the words of strangers are in there.
func SummarizeLogs(ctx context.Context, paths []string, o maillog.Options) (sum *maillog.Summary, gaps []observe.Gap, err error) {
	if os.Geteuid() != 0 {
		return maillog.Summarize(ctx, paths, o, nil)
	}
	var g opener.Grants
	named := make([]string, 0, len(paths))
	for _, path := range paths {
		if path != "-" {
			// What root names on the command line may be a link; what lies
			// beside a log may not.
			if target, err := filepath.EvalSymlinks(path); err == nil {
				path = target
			}
			if path, err = filepath.Abs(path); err != nil {
				return nil, nil, err
			}
			g.Logs = append(g.Logs, path)
		}
		named = append(named, path)
	}
	root, err := opener.Start(g)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := spool.Drop(unprivileged); err != nil {
		return nil, nil, err
	}
	return maillog.Summarize(ctx, named, o, root)
}
