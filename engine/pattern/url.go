package pattern

import (
	"errors"
	"net/url"
	"strings"
)

// CheckURL says why ctx.http takes no such URL; nil: it takes it. What a request
// carries is for its server alone, so that only https is taken.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err == nil && strings.EqualFold(u.Scheme, "http"):
		return errors.New("only https is taken: the URL begins with http")
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return errors.New("it is no URL with https:// and a host")
	case u.User != nil:
		return errors.New("the URL holds a user; send a header with a secret")
	}
	return nil
}
