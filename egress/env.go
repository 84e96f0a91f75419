package egress

import "net"

// noProxy are the destinations that a program connects to by itself: what runs in
// the same sandbox.
const noProxy = "localhost,127.0.0.1,::1"

// URL is the address of the proxy that listens at addr, with the Client's token.
func (c *Client) URL(addr net.Addr) string { return "http://flow:" + c.token + "@" + addr.String() }

// Env is the environment by which programs find the proxy that listens at addr
// inside, "K=V".
func (c *Client) Env(addr net.Addr) []string {
	url := c.URL(addr)
	var env []string
	for _, kv := range [...][2]string{{"HTTP_PROXY", url}, {"HTTPS_PROXY", url}, {"http_proxy", url}, {"https_proxy", url},
		{"NO_PROXY", noProxy}, {"no_proxy", noProxy},
		{"NODE_USE_ENV_PROXY", "1"}, // node from 22.21 on looks at the others only then
	} {
		env = append(env, kv[0]+"="+kv[1])
	}
	return env
}

// TrustEnv is the environment by which programs trust the run's authority: its
// certificate alone, and a bundle of it and the machine's.
func TrustEnv(alone, bundle string) []string {
	env := []string{"NODE_EXTRA_CA_CERTS=" + alone, "DENO_CERT=" + alone}
	for _, name := range [...]string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT",
		"CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "NIX_SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"} {
		env = append(env, name+"="+bundle)
	}
	return env
}
