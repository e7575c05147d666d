package pattern

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/muster-hub/muster/engine/rollout"
)

// Signature is an ed25519 signature of a bundle, as it lies beside it in the
// file pattern.sig (JSON).
type Signature struct {
	Key       string `json:"key"`       // the public key, base64
	Signature string `json:"signature"` // base64
}

// signatureMost bounds the bytes of the file pattern.sig.
const signatureMost = 1 << 10

// signed is what is signed: never the same as what another use of the key signs.
func signed(b *Bundle) []byte { return []byte("muster pattern 1\n" + b.Hash() + "\n") }

// GenerateKey makes an ed25519 key from 32 random bytes: the public one, which
// operators trust, and the private one, which signs; both as base64. The private
// one is twice as long, so that nobody takes one for the other.
func GenerateKey(random io.Reader) (public, private string, err error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return "", "", fmt.Errorf("no random bytes: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	private = base64.StdEncoding.EncodeToString(key)
	public, err = PublicKey(private)
	return public, private, err
}

// decodeKey reads base64 of a size, in the one form that encoding gives.
func decodeKey(text string, size int) ([]byte, bool) {
	if len(text) != base64.StdEncoding.EncodedLen(size) {
		return nil, false
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	return data, err == nil && len(data) == size
}

// CheckKey says what is wrong with a public key; nil: nothing.
func CheckKey(public string) error {
	if _, private := decodeKey(public, ed25519.PrivateKeySize); private {
		return errors.New("is a private key; expected the public one: keep this one to yourself")
	}
	if _, ok := decodeKey(public, ed25519.PublicKeySize); !ok {
		return fmt.Errorf("is no ed25519 key; expected %d bytes as base64", ed25519.PublicKeySize)
	}
	return nil
}

func privateKey(text string) (ed25519.PrivateKey, error) {
	key, ok := decodeKey(strings.TrimSpace(text), ed25519.PrivateKeySize)
	if !ok {
		return nil, fmt.Errorf("the key is no private ed25519 key; expected %d bytes as base64", ed25519.PrivateKeySize)
	}
	own := ed25519.PrivateKey(key)
	if !bytes.Equal(ed25519.NewKeyFromSeed(own.Seed()), own) {
		return nil, errors.New("the private key is damaged: its two halves are of different keys")
	}
	return own, nil
}

// PublicKey returns the public key of a private one.
func PublicKey(private string) (string, error) {
	key, err := privateKey(private)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key[ed25519.SeedSize:]), nil
}

// Sign signs a bundle, which must be one that may be installed.
func Sign(b *Bundle, private string) (*Signature, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	key, err := privateKey(private)
	if err != nil {
		return nil, err
	}
	return &Signature{
		Key:       base64.StdEncoding.EncodeToString(key[ed25519.SeedSize:]),
		Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(key, signed(b))),
	}, nil
}

// Verify says that the signature is not one of the bundle by its key; nil: it
// is. Whether the key is trusted is for the caller to know.
func (s *Signature) Verify(b *Bundle) error {
	key, ok := decodeKey(s.Key, ed25519.PublicKeySize)
	signature, also := decodeKey(s.Signature, ed25519.SignatureSize)
	if !ok || !also {
		return fileFault(SignatureFile, "holds no ed25519 key and signature", "what muster pattern sign writes")
	}
	if !ed25519.Verify(key, signed(b), signature) {
		return fileFault(SignatureFile, "is not of these files", "the signature of them as they are: sign them again")
	}
	return nil
}

// ParseSignature reads the file pattern.sig. The error is [rollout.Faults].
func ParseSignature(text []byte) (*Signature, error) {
	if len(text) > signatureMost {
		return nil, fileFault(SignatureFile, fmt.Sprintf("has %d bytes", len(text)), fmt.Sprintf("at most %d", signatureMost))
	}
	s := &Signature{}
	if err := rollout.Decode(text, SignatureFile, s); err != nil {
		return nil, err
	}
	if _, ok := decodeKey(s.Key, ed25519.PublicKeySize); !ok {
		return nil, fileFault(SignatureFile, "has no key", "an ed25519 key as base64")
	}
	if _, ok := decodeKey(s.Signature, ed25519.SignatureSize); !ok {
		return nil, fileFault(SignatureFile, "has no signature", "one of ed25519 as base64")
	}
	return s, nil
}

// Marshal returns the signature as the file pattern.sig.
func (s *Signature) Marshal() []byte { return append(marshal(s), '\n') }
