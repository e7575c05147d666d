package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/twin"
)

// identityLine is one line of an import: an ExportImportDevice.
type identityLine struct {
	identity Identity // ETag is the condition of the IfMatch modes
	mode     ImportMode
	hasKeys  bool
	twinETag string
	tags     *twin.Patch // nil: absent
	desired  *twin.Patch
	reported *twin.Patch

	// fresh are the sections of the twin as they begin, if the line makes it:
	// made before the transaction.
	fresh []sectionMerge
}

// importRule is how a line's sections are merged.
var importRule = sectionRule{merge: true, stamps: true}

func (l *identityLine) id() TwinID { return l.identity.ID() }

var importModes = []ImportMode{
	ImportCreate, ImportUpdate, ImportUpdateIfMatch, ImportDelete, ImportDeleteIfMatch, ImportCreateOrUpdate,
	ImportCreateOrUpdateIfMatch, ImportUpdateTwin, ImportUpdateTwinIfMatch,
}

// ParseImportMode reads a mode in any case; CodeArgumentInvalid for another text.
func ParseImportMode(text string) (ImportMode, error) {
	for _, m := range importModes {
		if strings.EqualFold(text, string(m)) {
			return m, nil
		}
	}
	return "", errf(CodeArgumentInvalid, "importMode %.40q is not known; expected create, update, delete, createOrUpdate, updateTwin or one with IfMatchETag", text)
}

// badLine is what IoT Hub says of a line that is no device.
func badLine(format string, args ...any) error {
	e := errf(CodeFormat, format, args...)
	e.Message = "Invalid device format in line: " + e.Message
	return e
}

// parseIdentityLine reads a line. The id is returned with an error, too, where
// it could be read. Errors of form are CodeFormat, those of a value
// CodeArgumentInvalid or CodeArgumentNull. The rules of an identity and of a
// section are looked at when the line is applied.
func parseIdentityLine(line []byte, mode ImportMode) (l identityLine, err error) {
	l.mode = mode
	p, err := twin.ParsePatch(bytes.TrimPrefix(line, []byte("\ufeff")), len(line))
	if err != nil {
		return l, badLine("%s", err.Error())
	}
	o, err := lineObjectOf("", p.View())
	if err != nil {
		return l, err
	}
	// First the names, so that an error can say of whom it is.
	i := &l.identity
	if err := errors.Join(o.text("id", &i.DeviceID), o.text("moduleId", &i.ModuleID)); err != nil {
		i.DeviceID, i.ModuleID = "", ""
		return l, badLine("%s", firstLine(err))
	}
	if i.DeviceID == "" {
		return l, errf(CodeArgumentNull, "id is missing; expected the device id")
	}
	var status, modeText string
	if err := errors.Join(o.text("status", &status), o.text("importMode", &modeText), o.text("statusReason", &i.StatusReason), o.text("eTag", &i.ETag),
		o.text("twinETag", &l.twinETag), o.text("deviceScope", &i.DeviceScope), o.text("managedBy", &i.ManagedBy), o.texts("parentScopes", &i.ParentScopes),
		capabilitiesOf(o, &i.Edge), authenticationOf(o, &l)); err != nil {
		return l, badLine("%s", firstLine(err))
	}
	if modeText != "" {
		if l.mode, err = ParseImportMode(modeText); err != nil {
			return l, badLine("%s", AsError(err).Message)
		}
	}
	switch {
	case strings.EqualFold(status, "disabled"):
		i.Disabled = true
	case strings.EqualFold(status, "enabled"):
	case status != "":
		return l, badLine("status is %.40q; expected enabled or disabled", status)
	case i.ModuleID == "": // a module has none
		return l, errf(CodeArgumentNull, "status is missing; every line of a device needs it: enabled or disabled")
	}
	return l, l.sections(p, o)
}

// firstLine is the first of joined errors.
func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// sections finds the twin's parts in the line.
func (l *identityLine) sections(p twin.Patch, o lineObject) error {
	for _, s := range []struct {
		to   **twin.Patch
		path []string
	}{{&l.tags, []string{"tags"}}, {&l.desired, []string{"properties", "desired"}}, {&l.reported, []string{"properties", "reported"}}} {
		path := s.path
		at := o
		for i, name := range path {
			if _, _, err := at.find(name); err != nil { // it comes twice
				return badLine("%s", err.Error())
			}
			path[i] = at.spelling(name)
			if i < len(path)-1 {
				var err error
				if at, err = at.object(name); err != nil {
					return badLine("%s", err.Error())
				}
			}
		}
		section, ok, err := p.Object(path...)
		if err != nil {
			return badLine("%s", err.Error())
		}
		if ok && !section.IsNull() { // an export writes null for what is not there
			*s.to = &section
		}
	}
	return nil
}

func capabilitiesOf(o lineObject, edge *bool) error {
	c, err := o.object("capabilities")
	if err != nil {
		return err
	}
	return c.boolean("iotEdge", edge)
}

// authenticationOf reads credentials. Their type is spelt exactly, as IoT Hub
// wants it.
func authenticationOf(o lineObject, l *identityLine) error {
	a, err := o.object("authentication")
	if err != nil {
		return err
	}
	keys, err := a.object("symmetricKey")
	if err != nil {
		return err
	}
	prints, err := a.object("x509Thumbprint")
	if err != nil {
		return err
	}
	to := &l.identity.Authentication
	var primary, secondary, kind string
	if err := errors.Join(keys.text("primaryKey", &primary), keys.text("secondaryKey", &secondary), a.text("type", &kind),
		prints.text("primaryThumbprint", &to.PrimaryThumbprint), prints.text("secondaryThumbprint", &to.SecondaryThumbprint)); err != nil {
		return err
	}
	switch t := AuthenticationType(kind); t {
	case AuthSAS, AuthSelfSigned, AuthCertificateAuthority, AuthNone:
		to.Type = t
	case "":
		if to.Type = AuthSAS; to.PrimaryThumbprint+to.SecondaryThumbprint != "" && primary+secondary == "" {
			to.Type = AuthSelfSigned
		}
	default:
		return fmt.Errorf("authentication.type is %.40q; expected exactly sas, selfSigned, certificateAuthority or none", kind)
	}
	if to.Type == AuthSAS {
		to.PrimaryKey, to.SecondaryKey, l.hasKeys = auth.Secret(primary), auth.Secret(secondary), primary+secondary != ""
	}
	return nil
}

// lineObject reads members of an object of a line. Names count in any case, as
// they do for IoT Hub; null is as good as absent.
type lineObject struct {
	where   string
	members twin.View
}

// lineObjectOf refuses names that come twice in different cases; the same
// spelling twice the parser has refused.
func lineObjectOf(where string, v twin.View) (lineObject, error) {
	o := lineObject{where, v}
	if v.Form() != '{' {
		return o, errors.New(where + " is not an object")
	}
	return o, nil
}

func (o lineObject) find(name string) (v twin.View, ok bool, err error) {
	if o.members == (twin.View{}) {
		return v, false, nil
	}
	for i := range o.members.Len() {
		key, value := o.members.At(i)
		if len(key) != len(name) || !strings.EqualFold(key, name) {
			continue
		}
		if ok {
			return v, false, errors.New(o.where + name + " comes twice; expected it once")
		}
		v, ok = value, true
	}
	return v, ok && v.Form() != 'n', nil
}

// spelling is how the line writes a name.
func (o lineObject) spelling(name string) string {
	if o.members == (twin.View{}) {
		return name
	}
	for i := range o.members.Len() {
		if key, _ := o.members.At(i); strings.EqualFold(key, name) {
			return key
		}
	}
	return name
}

func (o lineObject) text(name string, to *string) error {
	v, ok, err := o.find(name)
	if err != nil || !ok {
		return err
	}
	if v.Form() != '"' {
		return errors.New(o.where + name + " is not a string")
	}
	*to = v.Text()
	return nil
}

func (o lineObject) boolean(name string, to *bool) error {
	v, ok, err := o.find(name)
	if err != nil || !ok {
		return err
	}
	if v.Form() != 't' && v.Form() != 'f' {
		return errors.New(o.where + name + " is not true or false")
	}
	*to = v.Form() == 't'
	return nil
}

func (o lineObject) object(name string) (lineObject, error) {
	v, ok, err := o.find(name)
	if err != nil || !ok {
		return lineObject{where: o.where + name + "."}, err
	}
	if v.Form() != '{' {
		return lineObject{}, errors.New(o.where + name + " is not an object")
	}
	return lineObjectOf(o.where+name+".", v)
}

func (o lineObject) texts(name string, to *[]string) error {
	v, ok, err := o.find(name)
	if err != nil || !ok {
		return err
	}
	if v.Form() != '[' {
		return errors.New(o.where + name + " is not an array of strings")
	}
	for i := range v.Len() {
		_, item := v.At(i)
		if item.Form() != '"' || i >= 16 {
			return errors.New(o.where + name + " is not an array of at most 16 strings")
		}
		*to = append(*to, item.Text())
	}
	return nil
}
