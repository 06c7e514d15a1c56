package world

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// certs is the world's certificate authority. It is made at start and its key
// never leaves the process.
type certs struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate

	mu     sync.Mutex
	leaves map[leaf]*tls.Certificate
	serial int64
}

type leaf struct {
	host string
	mode TLSMode
}

const wrongName = "somebody-else.invalid"

func newCerts() (*certs, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Lab World CA"},
		NotBefore:    now.Add(-30 * 24 * time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate: %w", err)
	}
	return &certs{key: key, root: root, leaves: make(map[leaf]*tls.Certificate), serial: 1}, nil
}

// pem is what a client has to trust.
func (c *certs) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.root.Raw})
}

// config is the server side of a handshake for one host in one mode.
func (c *certs) config(host string, mode TLSMode) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cert := c.leaves[leaf{host, mode}]
	if cert == nil {
		var err error
		if cert, err = c.makeLocked(host, mode); err != nil {
			return nil, fmt.Errorf("make certificate for %q: %w", host, err)
		}
		c.leaves[leaf{host, mode}] = cert
	}
	return &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}, nil
}

func (c *certs) makeLocked(host string, mode TLSMode) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c.serial++
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(c.serial),
		NotBefore:    now.Add(-7 * 24 * time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	switch mode {
	case TLSExpired:
		tmpl.NotAfter = now.Add(-24 * time.Hour)
	case TLSWrongName:
		host = wrongName
	}
	tmpl.Subject, tmpl.DNSNames = pkix.Name{CommonName: host}, []string{host}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.root, key.Public(), c.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.root.Raw}, PrivateKey: key}, nil
}
