package agent

import "sync"

// program describes how arguments of an otherwise harmless program make it run
// another one or write a file of their choice. A prefix pattern (Bash(git:*)) does
// not grant that; a pattern that spells the argument out does.
//
// The table names what is known to be used that way. It narrows; it is not the
// boundary, which is the sandbox. Programs whose purpose is to run what is written
// (go test, make, cargo, pytest, node) are bounded by the sandbox only.
type program struct {
	flags []string // long flags count with their unambiguous beginnings too
	words []string // sub-commands
	// writes are flags that name a file to write, bundle such letters of bundles of
	// short flags: they need an allowed Write.
	writes []string
	bundle string
	// args judges the arguments that the pattern does not cover.
	args func([]word) string
}

// programs is made when the first command with a pattern is judged.
var programs = sync.OnceValue(func() map[string]program {
	return map[string]program{
		"find": {flags: []string{"-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprint", "-fprint0", "-fprintf", "-fls"}},
		"fd":   {flags: []string{"-x", "-X", "--exec", "--exec-batch"}, args: shortFlag('x', 'X')},
		"git": {
			flags: []string{"--exec", "-x", "--extcmd", "--open-files-in-pager", "-O", "--upload-pack", "--receive-pack", "--ext-diff", "--textconv",
				"--config-env", "--exec-path", "--template", "--config", "--edit-description", "--smtp-server"},
			writes: []string{"--output", "-o", "--output-directory", "--export-marks", "--in-place", "--prefix"},
			words: []string{"bisect", "submodule", "filter-branch", "config", "difftool", "mergetool", "daemon", "shell", "hook", "web--browse", "instaweb", "for-each-repo",
				"remote-ext", "remote-fd", "remote-http", "remote-https", "send-email", "svn", "p4", "gui", "citool", "cvsimport", "cvsexportcommit", "cvsserver", "archimport",
				"quiltimport", "credential", "credential-store", "credential-cache", "maintenance", "merge-index", "merge-one-file", "submodule--helper", "difftool--helper",
				"mergetool--lib", "upload-archive", "upload-pack", "receive-pack", "http-backend", "imap-send", "lfs"},
			args: ofGit,
		},
		"go": {
			flags: []string{"-exec", "--exec", "-toolexec", "--toolexec", "-vettool", "--vettool", "-ldflags", "--ldflags", "-gccgoflags", "--gccgoflags", "-C", "--C",
				"-modfile", "--modfile", "-overlay", "--overlay", "-pkgdir", "--pkgdir", "-w"},
			writes: []string{"-coverprofile", "--coverprofile", "-o", "--o", "-outputdir", "--outputdir", "-cpuprofile", "--cpuprofile", "-memprofile", "--memprofile",
				"-blockprofile", "--blockprofile", "-mutexprofile", "--mutexprofile", "-trace", "--trace"},
		},
		"gofmt": {writes: []string{"-w", "--w", "-cpuprofile", "--cpuprofile"}},
		"tar": {
			flags:  []string{"--to-command", "--checkpoint-action", "-I", "--use-compress-program", "--rsh-command", "--info-script", "--new-volume-script", "-F", "--rmt-command"},
			writes: []string{"--index-file"}, args: noBundledTar,
		},
		"cpio":  {flags: []string{"--rsh-command", "-F", "--file"}, writes: []string{"-O"}, bundle: "O"},
		"rsync": {flags: []string{"-e", "--rsh", "--rsync-path", "--config"}, writes: []string{"--log-file", "--write-batch"}, args: shortFlag('e')},
		"scp":   {flags: []string{"-S", "-o", "-F", "-D"}, args: shortFlag('S', 'o', 'F', 'D')},
		"sftp":  {flags: []string{"-S", "-o", "-F", "-D", "-b"}, args: shortFlag('S', 'o', 'F', 'D', 'b')},
		"sort":  {flags: []string{"--compress-program", "-T", "--temporary-directory", "--files0-from"}, writes: []string{"-o", "--output"}, args: shortFlag('o')},
		"uniq":  {args: oneFile},
		"diff":  {}, "sdiff": {flags: []string{"--diff-program"}, writes: []string{"-o", "--output"}, bundle: "o"}, "diff3": {flags: []string{"--diff-program"}},
		"rg":       {flags: []string{"--pre", "--hostname-bin", "-z", "--search-zip"}, args: shortFlag('z')},
		"ctags":    {flags: []string{"--options", "--_xformat"}, writes: []string{"-o", "-f"}},
		"man":      {flags: []string{"-P", "--pager", "-H", "--html", "-B", "-C", "--config-file", "-X", "-T"}},
		"bat":      {flags: []string{"--pager", "--paging"}},
		"delta":    {flags: []string{"--pager", "--paging"}},
		"make":     {flags: []string{"--eval", "-E", "-f", "--file", "--makefile"}, args: noSettings},
		"gmake":    {flags: []string{"--eval", "-E", "-f", "--file", "--makefile"}, args: noSettings},
		"ninja":    {flags: []string{"-f", "-C"}},
		"cmake":    {flags: []string{"-P", "-E", "-C", "--build-tool"}, args: noSettings},
		"cargo":    {flags: []string{"--config", "-C"}},
		"gradle":   {flags: []string{"-I", "--init-script"}},
		"npm":      {flags: []string{"--script-shell", "--node-options", "--globalconfig", "--userconfig", "--git", "--editor", "--shell", "--viewer", "--browser", "--python", "--node-gyp", "--init-module", "--prefix", "-C"}},
		"yarn":     {flags: []string{"--cwd", "--use-yarnrc", "--script-shell"}},
		"pnpm":     {flags: []string{"--dir", "-C", "--script-shell", "--node-options", "--shell-emulator"}},
		"pip":      {flags: []string{"--python", "--editor", "--log"}},
		"eslint":   {flags: []string{"-c", "--config", "--rulesdir", "-f", "--format", "--plugin", "--parser", "--resolve-plugins-relative-to"}, writes: []string{"--fix", "-o", "--output-file", "--cache-location"}},
		"prettier": {flags: []string{"--plugin", "--config"}, writes: []string{"--write", "-w"}},
		"printf":   {flags: []string{"-v"}, args: shortFlag('v')},
		"test":     {flags: []string{"-v", "-R"}},
		"[":        {flags: []string{"-v", "-R"}},
		"wget":     {flags: []string{"--use-askpass", "--execute", "-e", "--config", "--rejected-log"}, args: shortFlag('e')},
		"curl": {
			flags: []string{"-K", "--config", "--engine"},
			writes: []string{"-o", "--output", "-O", "--remote-name", "--remote-name-all", "--output-dir", "-D", "--dump-header", "-c", "--cookie-jar", "--trace", "--trace-ascii",
				"--stderr", "--libcurl", "--etag-save", "--hsts", "--alt-svc"},
			bundle: "oODc", args: shortFlag('K'),
		},
		"zip":     {flags: []string{"-TT", "--unzip-command"}},
		"split":   {flags: []string{"--filter"}},
		"shuf":    {writes: []string{"-o", "--output"}, bundle: "o"},
		"iconv":   {writes: []string{"-o", "--output"}, bundle: "o"},
		"tree":    {writes: []string{"-o"}, bundle: "o"},
		"xxd":     {args: oneFile},
		"jq":      {flags: []string{"-L", "--library-path", "-f", "--from-file"}},
		"yq":      {flags: []string{"--from-file"}, writes: []string{"-i", "--inplace", "-s", "--split-exp"}, bundle: "is"},
		"awk":     {args: awkScript},
		"gawk":    {args: awkScript},
		"mawk":    {args: awkScript},
		"nawk":    {args: awkScript},
		"sed":     {args: sedScript},
		"gsed":    {args: sedScript},
		"protoc":  {flags: []string{"--plugin"}},
		"gcc":     compiler,
		"g++":     compiler,
		"cc":      compiler,
		"c++":     compiler,
		"clang":   compiler,
		"clang++": compiler,
		"ld":      {flags: []string{"-plugin", "--plugin"}, args: noResponseFile},
		"openssl": {flags: []string{"-engine", "-provider", "-provider-path", "-config", "-rand"}, writes: []string{"-out", "-keyout", "-writerand"}},
		"kubectl": {flags: []string{"--kubeconfig"}, words: []string{"exec", "run", "cp", "debug", "proxy", "plugin", "edit", "attach", "port-forward", "config"}},
		"gh":      {words: []string{"alias", "extension", "ext", "codespace", "cs", "config", "auth", "browse", "ssh-key", "gpg-key"}},
		"hg":      {flags: []string{"--config", "--config-file", "-R", "--cwd", "--debugger"}},
		"svn":     {flags: []string{"--config-option", "--config-dir", "--diff-cmd", "--diff3-cmd", "--editor-cmd"}},
		"rpm":     {flags: []string{"--pipe", "--eval", "-E", "--define", "-D", "--macros", "--load", "--rcfile"}},
		"dpkg":    {flags: []string{"--pre-invoke", "--post-invoke", "--status-logger"}},
		"apt":     {flags: []string{"-o", "--option", "-c", "--config-file"}},
		"apt-get": {flags: []string{"-o", "--option", "-c", "--config-file"}},
		"tcpdump": {flags: []string{"-z"}, writes: []string{"-w"}},
		"nmap":    {flags: []string{"--script", "--datadir"}, writes: []string{"-oN", "-oX", "-oS", "-oG", "-oA"}},

		// What is typed into these, or stands in a file that they read, runs commands.
		"less": {args: nothingMore("an interactive pager")}, "more": {args: nothingMore("an interactive pager")}, "most": {args: nothingMore("an interactive pager")},
		"pg": {args: nothingMore("an interactive pager")}, "info": {args: nothingMore("an interactive pager")},
		"vi": {args: nothingMore("an editor")}, "vim": {args: nothingMore("an editor")}, "nvim": {args: nothingMore("an editor")}, "view": {args: nothingMore("an editor")},
		"vimdiff": {args: nothingMore("an editor")}, "ex": {args: nothingMore("an editor")}, "ed": {args: nothingMore("an editor")}, "red": {args: nothingMore("an editor")},
		"nano": {args: nothingMore("an editor")}, "pico": {args: nothingMore("an editor")}, "emacs": {args: nothingMore("an editor")}, "joe": {args: nothingMore("an editor")},
		"docker": {args: nothingMore("a way to another machine")}, "podman": {args: nothingMore("a way to another machine")}, "nerdctl": {args: nothingMore("a way to another machine")},
		"sqlite3": {args: nothingMore("a shell of a database")}, "psql": {args: nothingMore("a shell of a database")}, "mysql": {args: nothingMore("a shell of a database")},
		"mariadb": {args: nothingMore("a shell of a database")}, "duckdb": {args: nothingMore("a shell of a database")},
		"dc": {args: nothingMore("a calculator")}, "m4": {args: nothingMore("a macro processor")}, "gnuplot": {args: nothingMore("a plotter")},
		"ftp": {args: nothingMore("a client")}, "telnet": {args: nothingMore("a client")}, "lftp": {args: nothingMore("a client")},
	}
})

// compiler: -B, -specs, plugins and the linker's name run programs; @file holds
// arguments that are not seen.
var compiler = program{
	flags: []string{"-wrapper", "-B", "-specs", "--specs", "-fplugin", "-fuse-ld", "-Xlinker", "-Wl,-plugin", "-Wl,--plugin", "--ld-path", "-ld-path", "-Xclang", "-load"},
	args:  noResponseFile,
}
