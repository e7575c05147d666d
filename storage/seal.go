package storage

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A sealed value is a version byte, the first 4 bytes of the key's fingerprint, a 12-byte nonce
// and AES-256-GCM's output; the context is authenticated with it.
const (
	sealVersion = 1
	sealHeader  = 1 + 4 + 12
)

type sealer struct {
	master      []byte
	aead        cipher.AEAD
	fingerprint [8]byte
}

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("muster master key fingerprint\x00"), key...))
	return &sealer{master: bytes.Clone(key), aead: aead, fingerprint: [8]byte(sum[:8])}, nil
}

// loadMasterKey reads the key file, or makes it when create is set and it is absent.
func loadMasterKey(fs fsys, name string, create bool) (*sealer, error) {
	b, err := readWhole(fs, name, 4096)
	if errors.Is(err, os.ErrNotExist) && create {
		var key [32]byte
		_, _ = rand.Read(key[:]) // never fails (crypto/rand)
		b = []byte(base64.StdEncoding.EncodeToString(key[:]) + "\n")
		err = writeDurably(fs, name, b, 0o600)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: the master key %s is missing; put it back from where you keep it, or give its place with --master-key-file (only if it is lost for good, and the sealed secrets with it, does `muster repair` make a new one)", ErrMasterKey, name)
	}
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%w: %s does not hold a master key (32 bytes in base64); put it back from where you keep it", ErrMasterKey, name)
	}
	return newSealer(key)
}

func (s *sealer) id() string { return hex.EncodeToString(s.fingerprint[:]) }

// check refuses a key that is not the one the directory was made with.
func (s *sealer) check(want, name string) error {
	if want != s.id() {
		return fmt.Errorf("%w: %s is another master key (fingerprint %s) than this directory's (%s); put the right one back", ErrMasterKey, name, s.id(), want)
	}
	return nil
}

// Seal encrypts a secret with AES-256-GCM under the master key. context is not stored but
// authenticated: Unseal needs the same one, so a sealed value is worth nothing elsewhere.
func (db *DB) Seal(plain []byte, context string) ([]byte, error) {
	s := db.seal
	out := make([]byte, sealHeader, sealHeader+len(plain)+s.aead.Overhead())
	out[0] = sealVersion
	copy(out[1:5], s.fingerprint[:4])
	_, _ = rand.Read(out[5:sealHeader]) // never fails (crypto/rand)
	return s.aead.Seal(out, out[5:sealHeader], plain, []byte(context)), nil
}

// Unseal decrypts what Seal made with the same context; any other bytes are ErrCorrupt.
func (db *DB) Unseal(sealed []byte, context string) ([]byte, error) {
	s := db.seal
	switch {
	case len(sealed) < sealHeader+s.aead.Overhead():
		return nil, fmt.Errorf("%w: a sealed value of %q has %d bytes", ErrCorrupt, context, len(sealed))
	case sealed[0] != sealVersion:
		return nil, fmt.Errorf("%w: a sealed value of %q has version %d, this program knows %d", ErrNewerFormat, context, sealed[0], sealVersion)
	case string(sealed[1:5]) != string(s.fingerprint[:4]):
		return nil, fmt.Errorf("%w: a sealed value of %q was sealed with another master key; put that key back", ErrMasterKey, context)
	}
	plain, err := s.aead.Open(nil, sealed[5:sealHeader], sealed[sealHeader:], []byte(context))
	if err != nil {
		return nil, fmt.Errorf("%w: a sealed value of %q does not authenticate", ErrCorrupt, context)
	}
	return plain, nil
}

// DeriveKey returns a key of 32 bytes that follows from the master key and the purpose: the same
// one as long as that key stays, and of no use for any other purpose.
func (db *DB) DeriveKey(purpose string) []byte {
	key, _ := hkdf.Expand(sha256.New, db.seal.master, "muster derived key\x00"+purpose, 32) // 32 bytes are never too many
	return key
}

func (o Options) masterKeyPath() string {
	if o.MasterKeyFile != "" {
		return o.MasterKeyFile
	}
	return filepath.Join(o.Dir, masterKeyFile)
}
