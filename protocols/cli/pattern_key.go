package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

type patternKeyGroup struct {
	List   patternKeyListCmd   `cmd:"" help:"List the keys whose signatures the hub trusts."`
	Add    patternKeyAddCmd    `cmd:"" help:"Trust a key: patterns that it signed need no --unsigned."`
	Remove patternKeyRemoveCmd `cmd:"" help:"Trust a key no more; what was installed stays."`
}

type patternKeyListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists the trusted keys.
func (c *patternKeyListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.TrustedKeys(ctx)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"NAME", "KEY", "TRUSTED SINCE"}, empty: "No keys; `muster pattern keygen` makes one, `muster pattern key add NAME FILE.pub` trusts it."}
	for _, k := range list {
		sh.add(k, k.Name, k.Key, k.Created)
	}
	return a.print(c.OutputFlags, sh)
}

type patternKeyAddCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Name under which it is trusted."`
	Key  string `arg:"" help:"The public key: base64, or a file such as pattern.key.pub that holds it."`
}

// keyFileMost is the largest file of a public key in bytes.
const keyFileMost = 4 << 10

// Run trusts a key.
func (c *patternKeyAddCmd) Run(a *app) error {
	key := c.Key
	if len(key) != 44 || !strings.HasSuffix(key, "=") { // 32 bytes in base64
		data, err := readBounded(c.Key, keyFileMost)
		if err != nil {
			return err
		}
		key = strings.TrimSpace(string(data))
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	k, err := s.TrustKey(ctx, c.Name, key)
	if err != nil {
		return err
	}
	if c.Output == "table" {
		a.note("Patterns that %s signed can be installed.", printable(k.Name))
		return nil
	}
	return a.printRecord(c.OutputFlags, k, []field{{"name", k.Name}, {"key", k.Key}, {"created", k.Created}})
}

type patternKeyRemoveCmd struct {
	HubFlags
	Yes  bool     `short:"y" help:"Don't ask."`
	Name []string `arg:"" help:"Names of the keys."`
}

// Run trusts keys no more.
func (c *patternKeyRemoveCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, fmt.Sprintf("Trust %s no more?", printable(strings.Join(c.Name, ", ")))); err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	return a.each(c.HubFlags, c.Name, func(ctx context.Context, name string) error {
		err := s.DistrustKey(ctx, name)
		if err == nil {
			a.note("%s is trusted no more.", printable(name))
		}
		return err
	})
}

type patternSecretGroup struct {
	List   patternSecretListCmd   `cmd:"" help:"List the names of the secrets."`
	Set    patternSecretSetCmd    `cmd:"" help:"Make a secret, or give it another value."`
	Delete patternSecretDeleteCmd `cmd:"" help:"Delete secrets."`
}

type patternSecretListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists the secrets' names.
func (c *patternSecretListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.PatternSecrets(ctx)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"NAME", "SET", "BY"}, empty: "No secrets; `muster pattern secret set NAME` makes one."}
	for _, x := range list {
		sh.add(x, x.Name, x.Updated, x.By)
	}
	return a.print(c.OutputFlags, sh)
}

type patternSecretSetCmd struct {
	HubFlags
	From string `name:"from" help:"File with the value; standard input when not given. It is not taken from the command line, where others could see it." placeholder:"FILE"`
	Name string `arg:"" help:"Name of the secret."`
}

// secretMost is the largest value that is read, in bytes; the hub takes less.
const secretMost = 64 << 10

// Run sets a secret. One line's end at its end is not a part of it.
func (c *patternSecretSetCmd) Run(a *app) error {
	var data []byte
	var err error
	switch {
	case c.From != "" && c.From != "-":
		data, err = readBounded(c.From, secretMost)
	case a.inTerminal:
		data, err = a.readHidden("Value of the secret: ")
	default:
		data, err = io.ReadAll(io.LimitReader(a.io.In, secretMost+1))
	}
	if err != nil {
		return err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case value == "":
		return usage("the value is empty", "Give it on standard input, or with --from FILE.")
	case len(data) > secretMost:
		return usage("the value is larger than 64 KiB", "Secrets are short texts, such as tokens.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.SetPatternSecret(ctx, c.Name, value); err != nil {
		return err
	}
	a.note("Set the secret %s; a pattern that may use it names it secret:%s.", printable(c.Name), printable(c.Name))
	return nil
}

// readHidden asks for a line on a terminal that does not show what is typed.
func (a *app) readHidden(question string) ([]byte, error) {
	if _, err := io.WriteString(a.io.Err, question); err != nil {
		return nil, err
	}
	f, ok := a.io.In.(*os.File)
	if !ok {
		line, err := readLine(a.ctx, a.io.In)
		return []byte(line), err
	}
	shown, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	type result struct {
		line []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // as in readLine: it stays until the process ends, if a.ctx ends first
		line, err := term.ReadPassword(int(f.Fd()))
		done <- result{line, err}
	}()
	defer a.note("")
	select {
	case r := <-done:
		return r.line, r.err
	case <-a.ctx.Done():
		return nil, errors.Join(context.Cause(a.ctx), term.Restore(int(f.Fd()), shown))
	}
}

type patternSecretDeleteCmd struct {
	HubFlags
	Yes  bool     `short:"y" help:"Don't ask."`
	Name []string `arg:"" help:"Names of the secrets."`
}

// Run deletes secrets.
func (c *patternSecretDeleteCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, fmt.Sprintf("Delete the secret %s?", printable(strings.Join(c.Name, ", ")))); err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	return a.each(c.HubFlags, c.Name, func(ctx context.Context, name string) error {
		err := s.DeletePatternSecret(ctx, name)
		if err == nil {
			a.note("Deleted the secret %s.", printable(name))
		}
		return err
	})
}
