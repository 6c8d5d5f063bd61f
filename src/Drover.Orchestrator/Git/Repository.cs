using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>Who is written as author of commits.</summary>
internal sealed record GitIdentity(string Name, string Email);

/// <summary>
/// One user repository: where it is and how to ask it. Refs and worktree registrations are changed in the real repository
/// (<see cref="Real"/>); everything that reads or writes content uses <see cref="Hermetic"/>, which sees no configuration,
/// hook or attribute file an agent could have written.
/// </summary>
internal sealed partial class Repository
{
    private Repository(GitClient git, string root, string commonDirectory, string? head, GitSettings settings, bool shallow, string objectFormat)
    {
        Git = git;
        Root = root;
        CommonDirectory = commonDirectory;
        HeadBranch = head;
        Settings = settings;
        IsShallow = shallow;
        ObjectFormat = objectFormat;
        StateDirectory = Path.Combine(root, ".drover");
        Hermetic = new HermeticGit(this);
    }

    public GitClient Git { get; }

    /// <summary>Root of the main worktree, a full path.</summary>
    public string Root { get; }

    /// <summary>The directory all worktrees share (usually <c>.git</c> of the root), a full path.</summary>
    public string CommonDirectory { get; }

    /// <summary>Branch the main worktree has checked out, as <c>refs/heads/…</c>; null on a detached HEAD.</summary>
    public string? HeadBranch { get; }

    /// <summary>The user's settings as they were when the repository was opened, copied by value.</summary>
    public GitSettings Settings { get; }

    public bool IsShallow { get; }

    /// <summary><c>sha1</c> or <c>sha256</c>.</summary>
    public string ObjectFormat { get; }

    /// <summary><c>.drover</c> in the root.</summary>
    public string StateDirectory { get; }

    public HermeticGit Hermetic { get; }

    /// <summary>Scope of commands on refs and worktree registrations.</summary>
    public GitScope Real => new() { Directory = Root, GitDir = CommonDirectory };

    /// <summary>Finds the repository that contains a folder (full path).</summary>
    /// <exception cref="DroverException">InvalidInput: not a git repository, bare, or without commits.</exception>
    public static async Task<Repository> OpenAsync(GitClient git, string startDirectory, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
            throw new DroverException(ErrorCode.InvalidInput, "drover needs Linux or macOS for repositories; use WSL");
        if (!Directory.Exists(startDirectory))
            throw new DroverException(ErrorCode.InvalidInput, $"{startDirectory} is not a folder");
        var user = new GitScope { Directory = startDirectory, UserSettings = true };
        string[] ask = ["rev-parse", "--path-format=absolute", "--is-bare-repository", "--git-common-dir", "--git-dir", "--is-shallow-repository", "--show-object-format"];
        var answer = await git.TryAsync(user, ask, default, cancellationToken).ConfigureAwait(false);
        var lines = answer.Text.Split('\n');
        if (answer.ExitCode != 0 || lines.Length < 5)
        {
            throw answer.Error.Contains("dubious ownership", StringComparison.Ordinal)
                ? new DroverException(ErrorCode.InvalidInput, $"{startDirectory} belongs to another user; run `git config --global --add safe.directory {startDirectory}` if you trust it")
                : new DroverException(ErrorCode.InvalidInput, $"{startDirectory} is not a git repository; run `git init` and make a first commit");
        }
        var common = Path.TrimEndingDirectorySeparator(lines[1]);
        if (lines[0] == "true" || IsBare(common))
            throw new DroverException(ErrorCode.InvalidInput, $"{common} is a bare repository; drover needs one with a worktree (git clone it first)");
        var root = await RootAsync(git, user, common, lines[2], cancellationToken).ConfigureAwait(false);
        var head = Checkouts.Head(common);
        var settings = await GitSettings.ReadAsync(git, root, common, cancellationToken).ConfigureAwait(false);
        var repository = new Repository(git, root, common, head.Branch, settings, lines[3] == "true", lines[4]);
        if (await repository.ResolveAsync("HEAD", cancellationToken).ConfigureAwait(false) is null)
            throw new DroverException(ErrorCode.InvalidInput, $"{root} has no commits; make a first one (git commit --allow-empty -m start)");
        return repository;
    }

    /// <summary>The same repository asked through another client; tests give one whose git dies.</summary>
    internal Repository With(GitClient git) => new(git, Root, CommonDirectory, HeadBranch, Settings, IsShallow, ObjectFormat);

    /// <summary>The user's name and address, from the environment or <c>git config</c>.</summary>
    /// <exception cref="DroverException">InvalidInput, naming the two commands.</exception>
    public GitIdentity Identity()
    {
        var name = Git.User.GetValueOrDefault("GIT_AUTHOR_NAME") ?? Settings.Get("user.name");
        var email = Git.User.GetValueOrDefault("GIT_AUTHOR_EMAIL") ?? Settings.Get("user.email");
        return string.IsNullOrWhiteSpace(name) || string.IsNullOrWhiteSpace(email)
            ? throw new DroverException(ErrorCode.InvalidInput,
                "git does not know who you are; run `git config --global user.name \"Your Name\"` and `git config --global user.email you@example.com`")
            : new GitIdentity(Clean(name), Clean(email));

        static string Clean(string s) => new([.. s.Where(c => !char.IsControl(c) && c is not '<' and not '>')]);
    }

    /// <summary>The branch landings go to: the one named (<c>main</c> or <c>refs/heads/main</c>), or with null the one checked out.</summary>
    /// <returns>The full name, <c>refs/heads/…</c>.</returns>
    /// <exception cref="DroverException">InvalidInput: detached HEAD and no target; NotFound: no such branch.</exception>
    public async Task<string> DetectTargetAsync(string? explicitTarget, CancellationToken cancellationToken)
    {
        var target = explicitTarget is null ? HeadBranch : explicitTarget.StartsWith("refs/heads/", StringComparison.Ordinal) ? explicitTarget : "refs/heads/" + explicitTarget;
        if (target is null)
            throw new DroverException(ErrorCode.InvalidInput, $"HEAD of {Root} is detached; name the branch to land on with --target <branch>");
        if (target.StartsWith("refs/heads/drover/", StringComparison.Ordinal))
            throw new DroverException(ErrorCode.InvalidInput, $"{target} is a branch of a drover task; choose another target with --target <branch>");
        var check = await Git.TryAsync(Real, ["check-ref-format", target], default, cancellationToken).ConfigureAwait(false);
        if (check.ExitCode != 0)
            throw new DroverException(ErrorCode.InvalidInput, $"'{explicitTarget}' is not a branch name");
        return await ResolveAsync(target, cancellationToken).ConfigureAwait(false) is null
            ? throw new DroverException(ErrorCode.NotFound, $"branch {target["refs/heads/".Length..]} does not exist in {Root}; create it or choose another with --target <branch>")
            : target;
    }

    /// <summary>The commit a ref or expression points to now; null when there is none.</summary>
    public async Task<string?> ResolveAsync(string expression, CancellationToken cancellationToken) =>
        (await ResolveAsync([expression + "^{commit}"], cancellationToken).ConfigureAwait(false))[0];

    /// <summary>Several object expressions by one process; null where there is no such object.</summary>
    public async Task<string?[]> ResolveAsync(IReadOnlyList<string> expressions, CancellationToken cancellationToken) =>
        await ResolveAsync(Real, expressions, cancellationToken).ConfigureAwait(false);

    /// <inheritdoc cref="ResolveAsync(IReadOnlyList{string}, CancellationToken)"/>
    public async Task<string?[]> ResolveAsync(GitScope scope, IReadOnlyList<string> expressions, CancellationToken cancellationToken)
    {
        if (expressions.Count == 0)
            return [];
        if (expressions.Any(e => e.Contains('\n', StringComparison.Ordinal)))
            throw new DroverException(ErrorCode.InvalidInput, "an object name holds a line end");
        var input = Encoding.UTF8.GetBytes(string.Concat(expressions.Select(e => e + "\n")));
        var result = await Git.RunAsync(scope, ["cat-file", "--batch-check=%(objectname)"], input, cancellationToken).ConfigureAwait(false);
        var lines = result.Text.Split('\n');
        return [.. expressions.Select((_, i) => i < lines.Length && OidPattern().IsMatch(lines[i]) ? lines[i] : null)];
    }

    /// <summary>True when <paramref name="ancestor"/> is reachable from <paramref name="descendant"/> (or the same commit).</summary>
    public async Task<bool> IsAncestorAsync(string ancestor, string descendant, CancellationToken cancellationToken)
    {
        if (ancestor == descendant)
            return true;
        string[] ask = ["merge-base", "--is-ancestor", CheckOid(ancestor), CheckOid(descendant)];
        var result = await Git.TryAsync(Real, ask, default, cancellationToken).ConfigureAwait(false);
        return result.ExitCode switch { 0 => true, 1 => false, _ => throw GitClient.Failure(ask, result) };
    }

    /// <summary>Adds <c>.drover/</c> to the repository's own exclude file, once. The rest of the file is kept byte for byte.</summary>
    public void EnsureExcluded()
    {
        var file = Path.Combine(CommonDirectory, "info", "exclude");
        // A repository made without a template has neither the file nor its folder.
        var target = !File.Exists(file) ? file : new FileInfo(file).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? file;
        var text = File.Exists(target) ? File.ReadAllBytes(target) : [];
        var lines = Encoding.UTF8.GetString(text).Split('\n').Select(l => l.TrimEnd('\r', ' '));
        if (lines.Any(l => l is ".drover/" or "/.drover/" or ".drover" or "/.drover"))
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        var start = text.Length > 0 && text[^1] != (byte)'\n' ? "\n" : "";
        Posix.WriteAtomic(target, [.. text, .. Encoding.UTF8.GetBytes(start + ".drover/\n")]);
    }

    /// <summary>Names of the hooks the user's own git would run; Drover never runs them.</summary>
    public IReadOnlyList<string> Hooks()
    {
        var folder = Settings.Get("core.hookspath") is { Length: > 0 } path ? Path.Combine(Root, GitSettings.Expand(path, Git)) : Path.Combine(CommonDirectory, "hooks");
        return Directory.Exists(folder)
            ? [.. Directory.GetFiles(folder).Where(f => !f.EndsWith(".sample", StringComparison.Ordinal) && Posix.IsExecutable(f)).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)]
            : [];
    }

    /// <summary>The text if it is a full object id; guards against names reaching git where only ids are safe.</summary>
    public static string CheckOid(string oid) =>
        OidPattern().IsMatch(oid) ? oid : throw new DroverException(ErrorCode.InvalidInput, $"'{oid}' is not a full object id");

    private static async Task<string> RootAsync(GitClient git, GitScope user, string common, string gitDirectory, CancellationToken cancellationToken)
    {
        if (Path.TrimEndingDirectorySeparator(gitDirectory) == common)
        {
            // Also right for a separate git directory, where the list of worktrees names the wrong folder.
            var top = await git.TryAsync(user, ["rev-parse", "--path-format=absolute", "--show-toplevel"], default, cancellationToken).ConfigureAwait(false);
            if (top.ExitCode == 0)
                return Path.TrimEndingDirectorySeparator(top.Text);
        }
        return Path.GetFileName(common) == ".git"
            ? Path.GetDirectoryName(common)!
            : throw new DroverException(ErrorCode.InvalidInput, $"the main worktree of {common} is unknown; start drover in it");
    }

    // A linked worktree of a bare repository says it is not bare; the common directory's own setting tells.
    private static bool IsBare(string common) =>
        File.Exists(Path.Combine(common, "config"))
        && BarePattern().IsMatch(File.ReadAllText(Path.Combine(common, "config")));

    [GeneratedRegex(@"^\s*bare\s*=\s*true\s*$", RegexOptions.Multiline | RegexOptions.IgnoreCase)]
    private static partial Regex BarePattern();

    [GeneratedRegex(@"^([0-9a-f]{40}|[0-9a-f]{64})\z")]
    private static partial Regex OidPattern();
}

/// <summary>Dates of commits Drover makes: given by the caller, so that a repeated step yields the same object id.</summary>
internal static class GitDate
{
    public static string Format(DateTimeOffset date) => string.Create(CultureInfo.InvariantCulture, $"@{date.ToUnixTimeSeconds()} +0000");
}
