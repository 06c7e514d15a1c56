package world

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// Handler serves the control API. It trusts whoever reaches it, so it belongs
// on a socket that only the lab can open.
//
//	GET    /v1/config            the Config as it is now
//	GET    /v1/status            Status: addresses and counters
//	GET    /v1/ca.pem            the CA certificate
//	POST   /v1/reset             every counter, and what peers remember of clients
//	PUT    /v1/time_scale        {"time_scale": 60}
//	GET    /v1/dns               DNSConfig; PUT replaces, PATCH merges
//	PUT    /v1/dns/zones         one Zone; DELETE ?name=ZONE
//	PUT    /v1/dns/records       one RecordSet
//	PUT    /v1/dns/faults        one DNSFault; DELETE ?name=DOMAIN
//	GET    /v1/KIND/NAME         the peer's configuration; PUT adds or replaces,
//	                             PATCH merges, DELETE ends the peer
//	POST   /v1/KIND/NAME/reset   this peer's counters and memory
//
// KIND is providers, smart_hosts, milters, policies or filters. Bodies are
// JSON and decoded strictly. PATCH is a JSON merge patch (RFC 7396). Success
// is 200 with a body or 204 without; errors are {"error": TEXT} with 400 for a
// bad configuration, 404 for an unknown peer and 500 when a port could not be
// opened.
func (w *World) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			respond(rw, v, err)
		})
	}
	handle("GET /v1/config", func(*http.Request) (any, error) { return w.Config() })
	handle("GET /v1/status", func(*http.Request) (any, error) { return w.Status() })
	mux.HandleFunc("GET /v1/ca.pem", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = rw.Write(w.CA()) // the client has gone
	})
	handle("POST /v1/reset", func(*http.Request) (any, error) { return nil, w.reset() })
	handle("PUT /v1/time_scale", taking(func(b TimeScale) error {
		if err := w.clock.set(b.TimeScale); err != nil {
			return badConfig(err)
		}
		return nil
	}))
	w.handleDNS(handle)
	for _, f := range w.families() {
		handleFamily(handle, f.kind, f)
	}
	return mux
}

// TimeScale is the body of PUT /v1/time_scale.
type TimeScale struct {
	TimeScale float64 `json:"time_scale"`
}

type handleFunc func(pattern string, f func(r *http.Request) (any, error))

func (w *World) handleDNS(handle handleFunc) {
	handle("GET /v1/dns", func(*http.Request) (any, error) { return w.dns.config(), nil })
	handle("PUT /v1/dns", taking(w.dns.apply))
	handle("PATCH /v1/dns", func(r *http.Request) (any, error) {
		patch, err := body(r)
		if err != nil {
			return nil, err
		}
		return nil, w.changeDNS(func(c *DNSConfig) error {
			var changed DNSConfig
			if err := mergePatch(*c, patch, &changed); err != nil {
				return badConfig(err)
			}
			*c = changed
			return nil
		})
	})
	handle("PUT /v1/dns/zones", taking(w.putZone))
	handle("PUT /v1/dns/records", taking(w.putRecords))
	handle("PUT /v1/dns/faults", taking(w.putFault))
	handle("DELETE /v1/dns/zones", func(r *http.Request) (any, error) { return nil, w.removeZone(r.FormValue("name")) })
	handle("DELETE /v1/dns/faults", func(r *http.Request) (any, error) { return nil, w.removeFault(r.FormValue("name")) })
}

func handleFamily(handle handleFunc, kind string, f relatives) {
	path := " /v1/" + kind + "/{name}"
	withBody := func(do func(name string, body []byte) error) func(*http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			b, err := body(r)
			if err != nil {
				return nil, err
			}
			return nil, do(r.PathValue("name"), b)
		}
	}
	handle("GET"+path, func(r *http.Request) (any, error) { return f.get(r.PathValue("name")) })
	handle("PUT"+path, withBody(f.putJSON))
	handle("PATCH"+path, withBody(f.patchJSON))
	handle("DELETE"+path, func(r *http.Request) (any, error) { return nil, f.remove(r.PathValue("name")) })
	handle("POST"+path+"/reset", func(r *http.Request) (any, error) { return nil, f.reset(r.PathValue("name")) })
}

func (w *World) reset() error {
	w.dns.reset()
	var errs []error
	for _, f := range w.families() {
		errs = append(errs, f.reset(""))
	}
	return errors.Join(errs...)
}

const maxBody = 16 << 20

func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, badConfig(err)
	}
	return b, nil
}

// taking makes a handler of a function of a decoded body.
func taking[T any](do func(T) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		b, err := body(r)
		if err != nil {
			return nil, err
		}
		var v T
		if err := decodeStrict(bytes.NewReader(b), &v); err != nil {
			return nil, badConfig(err)
		}
		return nil, do(v)
	}
}

type apiError struct {
	Error string `json:"error"`
}

func respond(rw http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, errNoPeer):
		status = http.StatusNotFound
	case errors.Is(err, errBadConfig):
		status = http.StatusBadRequest
	case err != nil:
		status = http.StatusInternalServerError
	case v == nil:
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	if err != nil {
		v = apiError{err.Error()}
	}
	data, merr := json.Marshal(v)
	if merr != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_, _ = rw.Write(append(data, '\n')) // the client has gone
}
