// Package world is everything around a mail relay that is not the relay: name
// servers, the providers it delivers to, smart hosts, milters, policy services
// and content filters. Each is a real peer that speaks its protocol on a real
// socket, and each can be made to misbehave in the ways that jam a queue, while
// mail is flowing.
//
// A World is started from a [Config], which is data: a scenario file carries
// it as JSON. What a Config says can be changed at run time through
// [World.Handler], for which [Client] is the typed door. Decoding is strict
// everywhere, so that a misspelt fault is an error and not a healthy peer.
//
// # Invariants
//
// A provider answers 250 to a message only after every recipient of it stands
// in the ledger and the ledger has been flushed to disk. What [ReadLedger]
// returns is therefore at least what any client was told, and a test may call
// a message lost when its token is in no ledger and in no spool. The reverse
// does not hold, as on the Internet: a message may be in the ledger although
// its client never saw the 250. Where the world did that on purpose, or noticed
// it, the entry says so ([LedgerEntry.Lost]).
//
// Peers that share an address never lend state to each other: counters, rates,
// greylists and penalties belong to one peer and survive a change of its
// traffic policy, because a provider that relents still remembers its clients.
//
// The world never opens an outgoing connection, but for content filters, which
// re-inject to the one address that their configuration names.
//
// # Diagnostics
//
// [World.Status] (GET /v1/status) counts for each peer what was asked and what was
// answered. Failures of the world itself, such as a ledger that cannot be
// written, are counted as "internal" there and answered 451 4.3.0, so that they
// cannot be taken for a delivery.
//
// # Bugs
//
// The name server answers from its own data with the AA and RA bits both set,
// as no honest server would, because it stands for a resolver and for the
// authority behind it. It does not sign. The SMTP side has no CHUNKING, no
// BURL and no GSSAPI; relays fall back by themselves.
package world
