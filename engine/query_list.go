package engine

import (
	"encoding/json"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of the sorted lists that ORDER BY keeps between pages.
const (
	listTime  = 10 * time.Minute // since the last page
	listCount = 256
	listBytes = 64 << 20 // of all together
)

// resultList is what ORDER BY sorted: ids of whole twins, or rows.
type resultList struct {
	ids  []string
	rows []json.RawMessage

	hash  [tokenHash]byte
	used  time.Time
	bytes int
}

func (l *resultList) len() int { return len(l.ids) + len(l.rows) } // one of both is empty

// resultLists keeps lists until nobody has asked for ten minutes, or until
// there are too many: then the one goes that was left alone longest.
type resultLists struct {
	mu    sync.Mutex
	lists map[uint64]*resultList
	bytes int
}

func newResultLists() resultLists { return resultLists{lists: map[uint64]*resultList{}} }

// keep takes a list and returns its number.
func (l *resultLists) keep(list *resultList, now time.Time) uint64 {
	list.used = now
	list.bytes = 64
	for _, id := range list.ids {
		list.bytes += len(id) + 16
	}
	for _, r := range list.rows {
		list.bytes += len(r) + 24
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := rand.Uint64() | 1
	l.lists[n] = list
	l.bytes += list.bytes
	for len(l.lists) > 1 && (len(l.lists) > listCount || l.bytes > listBytes) {
		oldest := n
		for k, v := range l.lists {
			if k != n && (oldest == n || v.used.Before(l.lists[oldest].used)) {
				oldest = k
			}
		}
		l.dropLocked(oldest)
	}
	return n
}

// find returns a list that is still kept.
func (l *resultLists) find(n uint64, hash [tokenHash]byte, now time.Time) (*resultList, error) {
	l.sweep(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.lists[n]
	if list == nil || list.hash != hash {
		return nil, errf(CodeArgumentInvalid, "the sorted result of this token is kept no more: that ends %d minutes after its last page, at a restart, or when many queries with ORDER BY are under way; begin with the first page", int(listTime.Minutes()))
	}
	list.used = now
	return list, nil
}

// sweep drops lists that nobody has asked for.
func (l *resultLists) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, list := range l.lists {
		if now.Sub(list.used) > listTime {
			l.dropLocked(n)
		}
	}
}

func (l *resultLists) dropLocked(n uint64) {
	l.bytes -= l.lists[n].bytes
	delete(l.lists, n)
}
