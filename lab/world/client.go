package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Client talks to the control API of a world in another process.
type Client struct {
	http *http.Client
}

// Dial returns a client of the API at a UNIX socket. Nothing is opened before
// the first call, and nothing stays open after the last.
func Dial(socketPath string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		// Connections are cheap here, and an idle one would outlive the test
		// that made it.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath)
		},
	}}}
}

// Do is the call that all others are made of: in (if not nil) goes as JSON,
// the answer is decoded into out (if not nil). It is for what has no method.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask world: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	answer, err := c.roundTrip(ctx, method, path, body)
	if err != nil {
		return fmt.Errorf("ask world: %s %s: %w", method, path, err)
	}
	if out == nil {
		return nil
	}
	if err := decodeStrict(bytes.NewReader(answer), out); err != nil {
		return fmt.Errorf("ask world: %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) roundTrip(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://world/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return answer, nil
	}
	var e apiError
	if err := json.Unmarshal(answer, &e); err != nil || e.Error == "" {
		return nil, errors.New(resp.Status)
	}
	return nil, errors.New(e.Error)
}

// Config returns the world's configuration as it is now.
func (c *Client) Config(ctx context.Context) (Config, error) {
	return get[Config](ctx, c, "config")
}

// Status returns addresses and counters of every peer.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "status")
}

// CA returns the certificate, in PEM, that signs those of all hosts.
func (c *Client) CA(ctx context.Context) ([]byte, error) {
	ca, err := c.roundTrip(ctx, http.MethodGet, "ca.pem", nil)
	if err != nil {
		return nil, fmt.Errorf("ask world for its CA: %w", err)
	}
	return ca, nil
}

// Reset clears every counter and all that peers remember of their clients.
func (c *Client) Reset(ctx context.Context) error {
	return c.Do(ctx, http.MethodPost, "reset", nil, nil)
}

// SetTimeScale changes Config.TimeScale. Waits under way are not shortened.
func (c *Client) SetTimeScale(ctx context.Context, scale float64) error {
	return c.Do(ctx, http.MethodPut, "time_scale", TimeScale{scale}, nil)
}

// DNS returns the name server's configuration.
func (c *Client) DNS(ctx context.Context) (DNSConfig, error) {
	return get[DNSConfig](ctx, c, "dns")
}

// PutDNS replaces the name server's configuration.
func (c *Client) PutDNS(ctx context.Context, cfg DNSConfig) error {
	return c.Do(ctx, http.MethodPut, "dns", cfg, nil)
}

// PutZone adds or replaces one zone.
func (c *Client) PutZone(ctx context.Context, z Zone) error {
	return c.Do(ctx, http.MethodPut, "dns/zones", z, nil)
}

// RemoveZone removes one zone.
func (c *Client) RemoveZone(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, "dns/zones?name="+url.QueryEscape(name), nil, nil)
}

// PutRecords adds, replaces or, without values, removes one record set.
func (c *Client) PutRecords(ctx context.Context, set RecordSet) error {
	return c.Do(ctx, http.MethodPut, "dns/records", set, nil)
}

// PutFault adds or replaces the DNS fault of one domain.
func (c *Client) PutFault(ctx context.Context, f DNSFault) error {
	return c.Do(ctx, http.MethodPut, "dns/faults", f, nil)
}

// RemoveFault cures the DNS fault of one domain.
func (c *Client) RemoveFault(ctx context.Context, domain string) error {
	return c.Do(ctx, http.MethodDelete, "dns/faults?name="+url.QueryEscape(domain), nil, nil)
}

// Provider returns one provider's configuration.
func (c *Client) Provider(ctx context.Context, name string) (ProviderConfig, error) {
	return get[ProviderConfig](ctx, c, peerPath(KindProvider, name))
}

// PutProvider adds or changes a provider.
func (c *Client) PutProvider(ctx context.Context, p ProviderConfig) error {
	return c.put(ctx, KindProvider, p.Name, p)
}

// SmartHost returns one smart host's configuration.
func (c *Client) SmartHost(ctx context.Context, name string) (SmartHostConfig, error) {
	return get[SmartHostConfig](ctx, c, peerPath(KindSmartHost, name))
}

// PutSmartHost adds or changes a smart host.
func (c *Client) PutSmartHost(ctx context.Context, h SmartHostConfig) error {
	return c.put(ctx, KindSmartHost, h.Name, h)
}

// Milter returns one milter's configuration.
func (c *Client) Milter(ctx context.Context, name string) (MilterConfig, error) {
	return get[MilterConfig](ctx, c, peerPath(KindMilter, name))
}

// PutMilter adds or changes a milter.
func (c *Client) PutMilter(ctx context.Context, m MilterConfig) error {
	return c.put(ctx, KindMilter, m.Name, m)
}

// Policy returns one policy service's configuration.
func (c *Client) Policy(ctx context.Context, name string) (PolicyConfig, error) {
	return get[PolicyConfig](ctx, c, peerPath(KindPolicy, name))
}

// PutPolicy adds or changes a policy service.
func (c *Client) PutPolicy(ctx context.Context, p PolicyConfig) error {
	return c.put(ctx, KindPolicy, p.Name, p)
}

// Filter returns one content filter's configuration.
func (c *Client) Filter(ctx context.Context, name string) (FilterConfig, error) {
	return get[FilterConfig](ctx, c, peerPath(KindFilter, name))
}

// PutFilter adds or changes a content filter.
func (c *Client) PutFilter(ctx context.Context, f FilterConfig) error {
	return c.put(ctx, KindFilter, f.Name, f)
}

// SetTraffic replaces the traffic policy of a provider, smart host or filter.
func (c *Client) SetTraffic(ctx context.Context, kind, name string, t Traffic) error {
	// A merge would keep what t leaves out, so the old policy goes first; null
	// and object cannot stand in one patch.
	var cfg map[string]any
	if err := c.Do(ctx, http.MethodGet, peerPath(kind, name), nil, &cfg); err != nil {
		return err
	}
	cfg["traffic"] = t
	return c.Do(ctx, http.MethodPut, peerPath(kind, name), cfg, nil)
}

// Patch merges fields into a peer's configuration; change is anything that
// encodes as a JSON object.
func (c *Client) Patch(ctx context.Context, kind, name string, change any) error {
	return c.Do(ctx, http.MethodPatch, peerPath(kind, name), change, nil)
}

// SetDown closes or opens the ports of one peer.
func (c *Client) SetDown(ctx context.Context, kind, name string, down bool) error {
	return c.Patch(ctx, kind, name, map[string]bool{"down": down})
}

// Remove ends a peer.
func (c *Client) Remove(ctx context.Context, kind, name string) error {
	return c.Do(ctx, http.MethodDelete, peerPath(kind, name), nil, nil)
}

// ResetPeer clears one peer's counters and memory.
func (c *Client) ResetPeer(ctx context.Context, kind, name string) error {
	return c.Do(ctx, http.MethodPost, peerPath(kind, name)+"/reset", nil, nil)
}

func (c *Client) put(ctx context.Context, kind, name string, cfg any) error {
	return c.Do(ctx, http.MethodPut, peerPath(kind, name), cfg, nil)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.Do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

func peerPath(kind, name string) string { return kind + "/" + url.PathEscape(name) }

// SMTP returns the counters of a provider, smart host or filter.
func (s Status) SMTP(kind, name string) (SMTPCounters, error) {
	return countersOf[SMTPCounters](s, kind, name)
}

// Milter returns the counters of a milter.
func (s Status) Milter(name string) (MilterCounters, error) {
	return countersOf[MilterCounters](s, KindMilter, name)
}

// Policy returns the counters of a policy service.
func (s Status) Policy(name string) (PolicyCounters, error) {
	return countersOf[PolicyCounters](s, KindPolicy, name)
}

func countersOf[T any](s Status, kind, name string) (T, error) {
	var v T
	for _, p := range s.Peers {
		if p.Kind == kind && p.Name == name {
			err := decodeStrict(bytes.NewReader(p.Counters), &v)
			return v, err
		}
	}
	return v, fmt.Errorf("status of %s %q: %w", kind, name, errNoPeer)
}
