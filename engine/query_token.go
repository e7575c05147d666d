package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/muster-hub/muster/engine/query"
)

// place of a query's next page. A token is this, authenticated: the hub keeps
// nothing for it, so it outlives a restart. Only what ORDER BY sorted has a
// list in memory, which does not.
type queryPlace struct {
	query [tokenHash]byte // of text and source
	given int             // rows of all pages before
	last  string          // row or group behind which the page begins
	list  uint64          // of the sorted list instead; 0: none
}

const (
	tokenVersion = 1
	tokenHash    = 16 // bytes of SHA-256
	tokenMAC     = 16 // bytes of HMAC-SHA256
	tokenMost    = 8 << 10
	// tokenLast bounds what a token holds of the last row: it travels in a header.
	tokenLast = 2 << 10
)

// queryHash tells queries apart: a token is good for its own one only.
func queryHash(q *query.Query) [tokenHash]byte {
	sum := sha256.Sum256(append([]byte{byte(q.Source())}, q.Text()...))
	return [tokenHash]byte(sum[:tokenHash])
}

// token seals a place:
//
//	version (1 byte) | epoch | query (16 bytes) | given | list | last | MAC (16 bytes)
//
// in base64 for URLs. Numbers are varints, epoch and last have their length before them.
func (q *queries) token(p queryPlace) string {
	b := make([]byte, 0, 64+len(p.last))
	b = append(b, tokenVersion)
	b = appendText(b, q.hub.db.Epoch().ID)
	b = append(b, p.query[:]...)
	b = binary.AppendUvarint(b, uint64(p.given))
	b = binary.AppendUvarint(b, p.list)
	b = appendText(b, p.last)
	return base64.RawURLEncoding.EncodeToString(append(b, q.mac(b)...))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (q *queries) mac(b []byte) []byte {
	m := hmac.New(sha256.New, q.hub.db.DeriveKey("query tokens"))
	m.Write(b)
	return m.Sum(nil)[:tokenMAC]
}

var errToken = errors.New("token is cut short")

// place opens a token. The query is the one that the caller sent with it.
func (q *queries) place(token string, hash [tokenHash]byte) (queryPlace, error) {
	var p queryPlace
	foreign := errf(CodeArgumentInvalid, "the continuation token is not one that this hub gave; send it as it came, or none to begin with the first page")
	if len(token) > tokenMost {
		return p, foreign
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil || len(b) <= tokenMAC || b[0] != tokenVersion {
		return p, foreign
	}
	b, sum := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	if !hmac.Equal(sum, q.mac(b)) {
		return p, foreign
	}
	epoch, p, err := openPlace(b[1:])
	switch {
	case err != nil:
		return p, foreign
	case epoch != q.hub.db.Epoch().ID:
		return p, errf(CodeArgumentInvalid, "the continuation token is from before the hub was restored from a backup; begin with the first page")
	case p.query != hash:
		return p, errf(CodeArgumentInvalid, "the continuation token is another query's; send it with the query that it came from, unchanged, or none to begin with the first page")
	}
	return p, nil
}

func openPlace(b []byte) (epoch string, p queryPlace, err error) {
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errToken
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if err != nil || n > uint64(len(b)) {
			err = errToken
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	epoch = text()
	if len(b) < tokenHash {
		return "", p, errToken
	}
	copy(p.query[:], b)
	b = b[tokenHash:]
	given := number()
	p.list = number()
	p.last = text()
	if given > math.MaxInt32 || len(b) != 0 {
		err = errToken
	}
	p.given = int(given)
	return epoch, p, err
}
