package scripting

import _ "github.com/yuin/gopher-lua"
