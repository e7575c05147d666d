package service

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagBulk = "Import and export"

type containerBody struct {
	Name string `json:"name,omitempty" doc:"3 to 63 lower-case letters, digits and single dashes; the hub makes one up when absent."`
}

type containerDocument struct {
	Name        string    `json:"name"`
	Blobs       int       `json:"blobs"`
	Bytes       int64     `json:"bytes" doc:"Also of blocks that wait to be joined."`
	Principal   string    `json:"principal"`
	CreatedTime time.Time `json:"createdTime"`
	UpdatedTime time.Time `json:"updatedTime" doc:"When something in it was changed last; a container that is left alone for container_age is removed."`
}

type accessBody struct {
	ExpiresIn string `json:"expiresIn,omitempty" doc:"How long the address is good, as 2h or 30m; at most 168h. 24h when absent."`
}

type accessDocument struct {
	Container   string    `json:"container"`
	URI         string    `json:"uri" doc:"Address of the container with a token: good for Azure Storage's clients, and for jobs."`
	ExpiresTime time.Time `json:"expiresTime"`
}

type blobDocument struct {
	Name        string    `json:"name"`
	Size        int64     `json:"size" doc:"Bytes."`
	SHA256      string    `json:"sha256" doc:"Hexadecimal."`
	ContentType string    `json:"contentType,omitempty"`
	ETag        string    `json:"etag"`
	CreatedTime time.Time `json:"createdTime"`
	UpdatedTime time.Time `json:"updatedTime"`
}

func containerRoutes() []*route {
	const read, write = auth.RegistryRead, auth.RegistryWrite
	const all = "/api/v1/containers"
	const one = all + "/{name}"
	table := []*route{
		{method: http.MethodGet, pattern: all, operation: "listContainers", tag: tagBulk, permission: read, query: listQuery("containers"),
			summary: "Lists containers of blobs by name.", response: page[containerDocument]{}, handle: listContainers},
		{method: http.MethodPost, pattern: all, operation: "createContainer", tag: tagBulk, permission: write, idempotent: true,
			summary: "Makes a container of blobs, for imports and exports.", request: containerBody{}, response: containerDocument{}, status: http.StatusCreated, handle: createContainer},
		{method: http.MethodGet, pattern: one, operation: "getContainer", tag: tagBulk, permission: read,
			summary: "Says what a container holds.", response: containerDocument{}, handle: getContainer},
		{method: http.MethodDelete, pattern: one, operation: "deleteContainer", tag: tagBulk, permission: write,
			summary: "Deletes a container with its blobs, and voids its addresses.", status: http.StatusNoContent, handle: deleteContainer},
		{method: http.MethodPost, pattern: one + "/access", operation: "accessContainer", tag: tagBulk, permission: write, reads: true,
			summary: "Returns an address of the container that opens it to whoever has it.", request: accessBody{}, response: accessDocument{}, handle: accessContainer},
		{method: http.MethodGet, pattern: one + "/blobs", operation: "listBlobs", tag: tagBulk, permission: write, query: listQuery("blobs"),
			summary: "Lists the blobs of a container by name.", response: page[blobDocument]{}, handle: listBlobs},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func showContainer(c engine.Container) containerDocument {
	return containerDocument{c.Name, c.Blobs, c.Bytes, c.Principal, c.Created, c.Updated}
}

func listContainers(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	after, err := parseCursor(c.query.Get("cursor"), "containers", "")
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Containers(c.r.Context(), c.caller, after, limit)
	return answer{body: page[containerDocument]{show(list, showContainer), makeCursor("containers", "", next)}}, err
}

func createContainer(c *call) (answer, error) {
	f, err := c.optionalMembers("name")
	if err != nil {
		return answer{}, err
	}
	name, err := f.text("name")
	if err != nil {
		return answer{}, err
	}
	made, err := c.hub.CreateContainer(c.r.Context(), c.caller, name)
	return answer{status: http.StatusCreated, body: showContainer(made)}, err
}

func getContainer(c *call) (answer, error) {
	found, err := c.hub.Container(c.r.Context(), c.caller, c.params[0])
	return answer{body: showContainer(found)}, err
}

func deleteContainer(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteContainer(c.r.Context(), c.caller, c.params[0])
}

func accessContainer(c *call) (answer, error) {
	f, err := c.optionalMembers("expiresIn")
	if err != nil {
		return answer{}, err
	}
	text, err := f.text("expiresIn")
	if err != nil {
		return answer{}, err
	}
	var life time.Duration
	if text != "" {
		if life, err = time.ParseDuration(text); err != nil {
			return answer{}, invalid("expiresIn is %q; expected a duration such as 2h or 30m", clip(text))
		}
	}
	a, err := c.hub.ContainerAccess(c.r.Context(), c.caller, c.params[0], life)
	if err != nil {
		return answer{}, err
	}
	return answer{body: accessDocument{a.Container, c.containerURI(a), a.Expires}}, nil
}

// containerURI is where the client that asks finds the container.
func (c *call) containerURI(a engine.ContainerAccess) string {
	scheme, host := "https", c.r.Host
	if c.r.TLS == nil {
		scheme = "http"
	}
	if _, local := localPrincipal(c.r.Context()); local { // its Host names no place
		scheme, host = "https", c.hub.Hosts()[0]
	}
	return scheme + "://" + host + containersPath + url.PathEscape(a.Container) + a.Token
}

func listBlobs(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	list := "blobs of " + c.params[0]
	after, err := parseCursor(c.query.Get("cursor"), list, "")
	if err != nil {
		return answer{}, err
	}
	g, err := c.hub.OpenContainer(c.r.Context(), c.caller, c.params[0])
	if err != nil {
		return answer{}, err
	}
	blobs, next, err := c.hub.Blobs(c.r.Context(), g, "", after, limit)
	return answer{body: page[blobDocument]{show(blobs, func(b engine.ContainerBlob) blobDocument {
		return blobDocument{b.Name, b.Size, b.Digest, b.ContentType, b.ETag, b.Created, b.Updated}
	}), makeCursor(list, "", next)}}, err
}

// containerOf reads the address of a container. Only this hub's own are taken:
// a hub asks no other machine for what it imports.
func (c *call) containerOf(f fields, key string, keyBased bool) (engine.BlobContainer, error) {
	text, err := f.text(key)
	if err != nil || text == "" {
		return engine.BlobContainer{}, err
	}
	bad := func(why string) error {
		return &engine.Error{Code: engine.CodeBlobContainer, Message: f.name(key) + " " + why,
			Next: "Make a container of this hub with POST /api/v1/containers or `muster container create`, put the file into it, and give the address that it prints."}
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return engine.BlobContainer{}, bad("is no address of a container")
	}
	name, ok := strings.CutPrefix(strings.TrimSuffix(u.EscapedPath(), "/"), containersPath)
	if !ok || strings.Contains(name, "/") || name == "" || !c.isOwnHost(u) {
		return engine.BlobContainer{}, bad("is not a container of this hub; a hub imports from its own containers, and exports to them")
	}
	if name, err = url.PathUnescape(name); err != nil {
		return engine.BlobContainer{}, bad("is no address of a container")
	}
	b := engine.BlobContainer{Name: name}
	if u.RawQuery == "" && !keyBased {
		return b, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return engine.BlobContainer{}, bad("has a query that cannot be read")
	}
	t, err := auth.ParseContainerToken(query)
	if err != nil {
		return engine.BlobContainer{}, bad("has no good token: " + err.Error())
	}
	b.Token = &t
	return b, nil
}

// isOwnHost reports whether an address is of the hub: by one of its names, or by
// the name by which it is asked now.
func (c *call) isOwnHost(u *url.URL) bool {
	if strings.EqualFold(u.Host, c.r.Host) {
		return true
	}
	for _, host := range c.hub.Hosts() {
		if strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return false
}
