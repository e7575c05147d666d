package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/query"
)

// A preview's token says which spec had which targets, and until when that may
// be relied on. The hub keeps nothing for it, so it outlives a restart:
//
//	version (1 byte) | epoch | expiry | spec (16 bytes) | sum of the targets | MAC (16 bytes)
//
// in base64 for URLs. The expiry is in seconds, a varint; the epoch has its
// length before it.
const (
	previewVersion  = 1
	previewLifetime = 15 * time.Minute
)

// jobHash tells apart what jobs do, to whom and how: not what they are called.
func jobHash(s *JobSpec, saved savedText) ([sha256.Size]byte, error) {
	plain := *s
	plain.ID, plain.Description, plain.Labels, plain.AllowEmpty = "", "", nil, false
	b, err := marshal(jobSpecRecord{Spec: plain, Saved: saved})
	if err != nil {
		return [sha256.Size]byte{}, wrapf(CodeFormat, err, "the job can't be written as JSON: %v", err)
	}
	return sha256.Sum256(b), nil
}

// jobSeed is by what a job's targets are dealt out: a preview deals them out as
// the job will.
func jobSeed(s *JobSpec, saved savedText) uint64 {
	sum, err := jobHash(s, saved)
	if err != nil {
		return 0 // a job that is stored can be written
	}
	return binary.LittleEndian.Uint64(sum[:])
}

func (h *Hub) previewToken(spec [sha256.Size]byte, sum *targetSum, expires time.Time) string {
	b := make([]byte, 0, 1200)
	b = append(b, previewVersion)
	b = appendText(b, h.db.Epoch().ID)
	b = binary.AppendVarint(b, expires.Unix())
	b = append(b, spec[:tokenHash]...)
	b = sum.append(b)
	return base64.RawURLEncoding.EncodeToString(append(b, h.previewMAC(b)...))
}

func (h *Hub) previewMAC(b []byte) []byte {
	m := hmac.New(sha256.New, h.db.DeriveKey("job previews"))
	m.Write(b)
	return m.Sum(nil)[:tokenMAC]
}

// openPreview reads a token and returns the sum of the targets that it vouches
// for.
func (h *Hub) openPreview(token string, spec [sha256.Size]byte, now time.Time) (*targetSum, error) {
	foreign := errf(CodeArgumentInvalid, "the token is not one that a preview of this hub gave; send it as it came")
	if len(token) > tokenMost {
		return nil, foreign
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil || len(b) <= tokenMAC || b[0] != previewVersion {
		return nil, foreign
	}
	b, mac := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	if !hmac.Equal(mac, h.previewMAC(b)) {
		return nil, foreign
	}
	d := binaryReader{b: b[1:]}
	epoch, expires := d.text(), d.varint()
	sum := h.newTargetSum()
	if d.bad || len(d.b) < tokenHash {
		return nil, foreign
	}
	of := d.b[:tokenHash]
	if rest, ok := sum.read(d.b[tokenHash:]); !ok || len(rest) != 0 {
		return nil, foreign
	}
	switch {
	case epoch != h.db.Epoch().ID:
		return nil, errf(CodeJobPreviewChanged, "the preview is from before the hub was restored from a backup")
	case now.Unix() >= expires:
		return nil, errf(CodeJobPreviewChanged, "the preview is older than %d minutes", int(previewLifetime.Minutes()))
	case !slices.Equal(of, spec[:tokenHash]):
		return nil, errf(CodeJobPreviewChanged, "the token is another job's: targets, action or policy are not those of its preview")
	}
	return sum, nil
}

// newMost is how many targets a refusal names that a preview had not.
const newMost = 5

// redeemPreview checks that a job's targets are those of its preview, and
// returns their sum.
func (h *Hub) redeemPreview(ctx context.Context, checked *checkedJob, token string, now time.Time) ([]byte, error) {
	hash, err := jobHash(&checked.spec, checked.saved)
	if err != nil {
		return nil, err
	}
	before, err := h.openPreview(token, hash, now)
	if err != nil {
		return nil, err
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return nil, err
	}
	sum := h.newTargetSum()
	err = h.eachTarget(ctx, checked.targets, targetAsk{}, func(rows []query.Row) bool {
		for _, row := range rows {
			sum.add(row.ID)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if sum.same(before) {
		return before.append(nil), nil
	}
	change := sum.since(before)
	message := fmt.Sprintf("the job had %s in its preview and has %d now: %s", plural(int(before.Count), "target"), sum.Count, change)
	if names, err := h.nameNew(ctx, checked, change); err == nil && len(names) > 0 {
		message += "; " + strings.Join(names, ", ") + " came"
	}
	return nil, errf(CodeJobPreviewChanged, "%s", message)
}

// nameNew returns some of the targets that came since a preview.
func (h *Hub) nameNew(ctx context.Context, checked *checkedJob, change targetChange) (names []string, err error) {
	if len(change.New) == 0 {
		return nil, nil
	}
	sum := h.newTargetSum()
	err = h.eachTarget(ctx, checked.targets, targetAsk{}, func(rows []query.Row) bool {
		for _, row := range rows {
			if id, _ := sum.hashRow(row.ID); change.New[id] {
				if names = append(names, twinIDOfRow(row.ID).String()); len(names) == newMost {
					return false
				}
			}
		}
		return true
	})
	return names, err
}
