package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postgres is a cluster of its own in a temporary directory, reached by a unix
// socket. It does the same work as the embedded stores, in one statement, which
// is one transaction: update the document, which moves its entry in an
// expression index, insert the history row, insert the change-log entry.
type postgres struct {
	dir   string // cluster, socket, scripts and logs
	bin   string // of the server's programs
	user  *user.User
	about string // what it calls itself
}

// postgresPackaged is the server as Debian's package sets it up: 128 MB of buffers,
// a checkpoint after 1 GB of log or five minutes. Every commit waits for its
// record's sync.
const postgresPackaged = ""

// postgresTuned gives the server memory and rare checkpoints; durability is as it
// ships.
const postgresTuned = `
max_connections = 200
shared_buffers = 2GB
wal_buffers = 64MB
min_wal_size = 2GB
max_wal_size = 8GB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
wal_level = minimal
max_wal_senders = 0
wal_compression = off
synchronous_commit = on
fsync = on
full_page_writes = on
effective_cache_size = 8GB
work_mem = 16MB
jit = off
`

// postgresReached has the server found by its socket alone.
const postgresReached = `
listen_addresses = ''
unix_socket_directories = '%s'
`

const postgresSchema = `
CREATE TABLE document (id text PRIMARY KEY, doc jsonb NOT NULL) WITH (fillfactor = 50);
CREATE TABLE history (id text NOT NULL, version bigint NOT NULL, at timestamptz NOT NULL, principal text NOT NULL,
  patch jsonb NOT NULL, undo jsonb NOT NULL, PRIMARY KEY (id, version));
CREATE TABLE change (position bigserial PRIMARY KEY, entry jsonb NOT NULL);
CREATE INDEX document_battery ON document (((doc #>> '{reported,battery}')::int));
`

// postgresUpdate is the script that pgbench runs. The undo patch has the size
// of a real one but random members: reading the old ones in the same statement
// would cost the server a second look-up.
const postgresUpdate = `\set n random(%d, %d)
\set battery random(10, 99)
\set uptime random(1000000000, 1999999999)
\set reading random(10, 89)
WITH u AS (
  UPDATE document SET doc = jsonb_set(jsonb_set(jsonb_set(jsonb_set(doc,
    '{version}', to_jsonb((doc ->> 'version')::bigint + 1)),
    '{reported,battery}', to_jsonb(:battery::int)),
    '{reported,uptime}', to_jsonb(:uptime::bigint)),
    '{reported,temperature}', to_jsonb(:reading::numeric + 0.5))
  WHERE id = 'device-' || :n::text RETURNING id, (doc ->> 'version')::bigint AS version
), h AS (
  INSERT INTO history SELECT id, version, now(), 'device:' || id,
    jsonb_build_object('battery', :battery::int, 'uptime', :uptime::bigint, 'temperature', :reading::numeric + 0.5, 'status', 'ok'),
    jsonb_build_object('battery', :battery::int, 'uptime', :uptime::bigint, 'temperature', :reading::numeric + 0.5, 'status', 'ok')
  FROM u
)
INSERT INTO change (entry) SELECT jsonb_build_object('kind', 'twin.reported', 'device', id, 'version', version, 'data',
  jsonb_build_object('battery', :battery::int, 'uptime', :uptime::bigint, 'temperature', :reading::numeric + 0.5, 'status', 'ok'))
FROM u;
`

// startPostgres makes a cluster with settings under dir, fills it and leaves it
// running.
func startPostgres(ctx context.Context, dir string, documents int, settings string) (*postgres, error) {
	p, err := emptyPostgres(ctx, dir, settings)
	if err != nil {
		return nil, err
	}
	return p, p.fill(ctx, documents)
}

// emptyPostgres makes a cluster with settings under dir and leaves it running.
func emptyPostgres(ctx context.Context, dir, settings string) (*postgres, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql (run.sh does it)")
	}
	p := &postgres{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	if os.Geteuid() == 0 { // the server refuses to run as root
		if p.user, err = user.Lookup("postgres"); err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(p.user.Uid)
		gid, _ := strconv.Atoi(p.user.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
		if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
			return nil, err
		}
	}
	if _, err := p.command(ctx, "initdb", "-D", p.data(), "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w", err)
	}
	conf, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conf, postgresReached+settings, dir)
	if err := conf.Close(); err != nil {
		return nil, err
	}
	return p, p.start(ctx)
}

// start starts the server, after stop again.
func (p *postgres) start(ctx context.Context) error {
	if out, err := p.command(ctx, "pg_ctl", "-D", p.data(), "-w", "-l", filepath.Join(p.dir, "server.log"), "start").CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl start: %w: %s", err, out)
	}
	return nil
}

func (p *postgres) data() string { return filepath.Join(p.dir, "cluster") }

// command runs one of the server's programs as the user that may.
func (p *postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	c.Dir = p.dir
	c.Env = append(os.Environ(), "PGHOST="+p.dir, "PGUSER=bench", "PGDATABASE=postgres", "LC_ALL=C")
	if p.user != nil {
		uid, _ := strconv.ParseUint(p.user.Uid, 10, 32)
		gid, _ := strconv.ParseUint(p.user.Gid, 10, 32)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return c
}

// sql runs statements and returns what they print, without decoration.
func (p *postgres) sql(ctx context.Context, text string) (string, error) {
	c := p.command(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
	c.Stdin = strings.NewReader(text)
	var complaints bytes.Buffer
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, complaints.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (p *postgres) fill(ctx context.Context, documents int) error {
	if _, err := p.sql(ctx, postgresSchema); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("COPY document FROM STDIN;\n")
	for i := range documents {
		fmt.Fprintf(&b, "%s\t%s\n", documentID(i), newDocument(i)) // no backslash, tab or newline in a document
	}
	b.WriteString("\\.\n")
	if _, err := p.sql(ctx, b.String()); err != nil {
		return err
	}
	script := fmt.Sprintf(postgresUpdate, firstID, firstID+documents-1)
	if err := os.WriteFile(p.script(), []byte(script), 0o644); err != nil {
		return err
	}
	_, err := p.sql(ctx, "VACUUM ANALYZE; CHECKPOINT;")
	return err
}

func (p *postgres) script() string { return filepath.Join(p.dir, "update.sql") }

// measure runs pgbench and reads its log of transactions.
func (p *postgres) measure(ctx context.Context, clients int, d time.Duration) (outcome, error) {
	o := outcome{Store: filepath.Base(p.dir), Writers: clients}
	count := func() (n int, err error) {
		s, err := p.sql(ctx, fmt.Sprintf("SELECT coalesce(sum((doc ->> 'version')::bigint - %d), 0) FROM document;", firstVersion))
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(s)
	}
	before, err := count()
	if err != nil {
		return o, err
	}
	for _, old := range p.logs() {
		_ = os.Remove(old)
	}
	out, err := p.command(ctx, "pgbench", "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2",
		"-T", strconv.Itoa(int(max(1, d.Seconds()))), "-l", "--log-prefix", filepath.Join(p.dir, "transactions"), "-f", p.script()).CombinedOutput()
	if err != nil {
		return o, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "tps = "); ok {
			if o.PerSecond, err = strconv.ParseFloat(strings.Fields(rest)[0], 64); err != nil {
				return o, err
			}
		}
	}
	if o.Latency, err = p.latency(); err != nil {
		return o, err
	}
	after, err := count()
	o.Lost = before + int(o.Latency.Count) - after
	return o, err
}

func (p *postgres) logs() []string {
	list, _ := filepath.Glob(filepath.Join(p.dir, "transactions.*"))
	return list
}

// latency reads pgbench's logs, whose third column is microseconds.
func (p *postgres) latency() (summary, error) {
	var h histogram
	for _, name := range p.logs() {
		f, err := os.Open(name)
		if err != nil {
			return summary{}, err
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			column := strings.Fields(s.Text())
			if len(column) < 3 {
				continue
			}
			us, err := strconv.ParseInt(column[2], 10, 64)
			if err != nil {
				continue // a failed transaction
			}
			h.add(time.Duration(us) * time.Microsecond)
		}
		if err := s.Err(); err != nil {
			return summary{}, err
		}
	}
	return h.summary(), nil
}

// version is what the server calls itself.
func (p *postgres) version(ctx context.Context) string {
	s, err := p.sql(ctx, "SELECT version();")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(s)[:min(2, len(strings.Fields(s)))], " ")
}

// stop ends the server; its files stay.
func (p *postgres) stop() error {
	out, err := p.command(context.Background(), "pg_ctl", "-D", p.data(), "-m", "fast", "-w", "stop").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_ctl stop: %w: %s", err, out)
	}
	return nil
}

// bestOf returns the outcome with the most updates a second.
func bestOf(list []outcome) outcome {
	return slices.MaxFunc(list, func(a, b outcome) int {
		switch {
		case a.PerSecond < b.PerSecond:
			return -1
		case a.PerSecond > b.PerSecond:
			return 1
		}
		return 0
	})
}
