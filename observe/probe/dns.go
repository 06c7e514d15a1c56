package probe

import (
	"context"

	"holdfast/observe"
	"holdfast/postfix"
)

// askDNS asks every name server that Postfix's smtp asks, each by itself.
func askDNS(_ context.Context, _ postfix.Instance, _ observe.Settings, _ observe.Questions) (observe.DNS, []observe.Gap) {
	return observe.DNS{}, []observe.Gap{{Source: "dns", Text: "name servers are not asked yet"}}
}
