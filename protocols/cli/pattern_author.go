package cli

// patternAuthor has the commands of whoever writes patterns; they need no hub.
type patternAuthor struct{}
