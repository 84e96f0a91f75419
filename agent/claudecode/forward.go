package claudecode

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"flowrun.dev/flow/agent"
)

// Forward is the simplest Gateway: it checks the conversation's token, adds the key,
// and passes on.
type Forward struct {
	BaseURL string // "" for the public API
	// One of them is needed: X-Api-Key, or Authorization: Bearer.
	APIKey, AuthToken string
	Transport         http.RoundTripper // nil for a default one
}

// Check says whether there is a key and an address.
func (f *Forward) Check() error {
	if f.APIKey == "" && f.AuthToken == "" {
		return invalid("set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN), or use provider replay, which needs none", "reach the model: there is no key")
	}
	_, err := f.base()
	return err
}

func (f *Forward) base() (*url.URL, error) {
	raw := f.BaseURL
	if raw == "" {
		raw = "https://api.anthropic.com"
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, invalid("set ANTHROPIC_BASE_URL to an address like https://api.anthropic.com, or leave it out", "reach the model: its base URL is no http or https address")
	}
	return u, nil
}

// Open makes a token for one conversation.
func (f *Forward) Open(agent.Request) (http.Handler, string, error) {
	base, err := f.base()
	if err != nil {
		return nil, "", err
	}
	var secret [24]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	token := "flow-" + hex.EncodeToString(secret[:])
	proxy := &httputil.ReverseProxy{
		Transport: f.Transport, FlushInterval: -1, ErrorLog: log.New(nowhere{}, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			r.Out.Header.Del("X-Api-Key")
			r.Out.Header.Del("Authorization")
			if f.APIKey != "" {
				r.Out.Header.Set("X-Api-Key", f.APIKey)
			} else {
				r.Out.Header.Set("Authorization", "Bearer "+f.AuthToken)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			answer(w, http.StatusBadGateway, "api_error", fmt.Sprintf("reach %s: %v", base.Host, errors.Unwrap(err)))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Api-Key")), []byte(token)) != 1 {
			answer(w, http.StatusUnauthorized, "authentication_error", "this is not the token of the conversation")
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/v1/messages") {
			answer(w, http.StatusNotFound, "not_found_error", "only the Messages API is served here")
			return
		}
		proxy.ServeHTTP(w, r)
	}), token, nil
}

func answer(w http.ResponseWriter, status int, kind, text string) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": text}})
}
