using System.Diagnostics;
using System.Text;
using Drover.Orchestrator.Git;

[assembly: System.Runtime.Versioning.UnsupportedOSPlatform("windows")]

namespace Drover.Orchestrator.Tests.Git;

/// <summary>A real repository in a temporary folder, a home of its own, and the room under test opened on it.</summary>
internal sealed class GitTestRepo : IDisposable
{
    private readonly string _top = Directory.CreateTempSubdirectory("drover-git-").FullName;
    private readonly Dictionary<string, string> _environment;

    public GitTestRepo(string branch = "trunk", string folder = "repo", bool initialise = true)
    {
        Home = Path.Combine(_top, "home");
        Root = Path.Combine(_top, folder);
        Directory.CreateDirectory(Home);
        Directory.CreateDirectory(Root);
        _environment = new Dictionary<string, string> { ["HOME"] = Home, ["PATH"] = "/usr/local/bin:/usr/bin:/bin", ["GIT_CONFIG_NOSYSTEM"] = "1" };
        File.WriteAllText(Path.Combine(Home, ".gitconfig"), "[user]\n\tname = Ada Lovelace\n\temail = ada@example.com\n[protocol \"file\"]\n\tallow = always\n");
        if (!initialise)
            return;
        Run("init", "-q", "-b", branch);
        Write("README.md", "hello\n");
        Write("src/one.txt", "1\n2\n3\n4\n5\n");
        Write("src/two.txt", "two\n");
        Write(".gitignore", "*.log\n");
        CommitAll("start");
    }

    public static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static DateTimeOffset Date { get; } = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000);

    public static GitIdentity Ada { get; } = new("Ada Lovelace", "ada@example.com");

    public string Top => _top;

    public string Home { get; }

    public string Root { get; }

    public Repository Repository { get; private set; } = null!;

    public Worktrees Worktrees => field ??= new Worktrees(Repository, TimeProvider.System);

    public WorkCommit WorkCommit => field ??= new WorkCommit(Repository, TimeProvider.System);

    public Landing Landing => field ??= new Landing(Repository, TimeProvider.System);

    public CheckoutSync Sync => new(Repository, TimeProvider.System);

    public GitClient Client(string? git = null) => new(git, _environment);

    public async Task<GitTestRepo> OpenAsync(string? git = null)
    {
        Repository = await Repository.OpenAsync(Client(git), Root, Ct);
        Repository.EnsureExcluded();
        return this;
    }

    public string Run(params string[] arguments) => RunIn(Root, arguments);

    public string RunIn(string folder, params string[] arguments)
    {
        var (code, output, error) = Try(folder, arguments);
        Assert.True(code == 0, $"git {string.Join(' ', arguments)}: {error}");
        return output;
    }

    public (int Code, string Output, string Error) Try(string folder, params string[] arguments)
    {
        var info = new ProcessStartInfo("git", arguments) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        info.Environment.Clear();
        foreach (var (name, value) in _environment)
            info.Environment[name] = value;
        info.Environment["GIT_AUTHOR_DATE"] = info.Environment["GIT_COMMITTER_DATE"] = "@1600000000 +0000";
        using var process = Process.Start(info)!;
        process.StandardInput.Close();
        var error = process.StandardError.ReadToEndAsync(Ct);
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output.TrimEnd('\n'), error.Result);
    }

    public void Write(string path, string text) => Write(Root, path, Encoding.UTF8.GetBytes(text));

    public static void Write(string folder, string path, string text) => Write(folder, path, Encoding.UTF8.GetBytes(text));

    public static void Write(string folder, string path, byte[] bytes)
    {
        var file = Path.Combine(folder, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllBytes(file, bytes);
    }

    public string Read(string path) => File.ReadAllText(Path.Combine(Root, path));

    public void CommitAll(string message)
    {
        Run("add", "-A");
        Run("commit", "-q", "-m", message);
    }

    public string Oid(string expression) => Run("rev-parse", "--verify", expression);

    public bool HasRef(string name) => Try(Root, "rev-parse", "-q", "--verify", name).Code == 0;

    /// <summary>Makes a worktree for an attempt from the tip of trunk, lets the "agent" edit and commits its work.</summary>
    public async Task<(Worktree Worktree, Work Work)> WorkAsync(string task, Action<string> agent, int attempt = 1, string branch = "trunk")
    {
        var worktree = await Worktrees.EnsureAsync(new AttemptName(task, attempt), Oid(branch), Ct);
        agent(worktree.Path);
        return (worktree, await WorkCommit.CreateAsync(worktree, Request(task), Ct));
    }

    public static WorkRequest Request(string message, ConflictTurn? turn = null) => new() { Message = message, Identity = Ada, Date = Date, Turn = turn };

    /// <summary>Merges and builds the landing commit of an attempt's work onto the branch's tip.</summary>
    public async Task<(string Old, string New)> CandidateAsync(Worktree worktree, Work work, string branch = "trunk")
    {
        var tip = Oid("refs/heads/" + branch);
        var merged = Assert.IsType<MergeOutcome.Clean>(await Landing.MergeAsync(tip, work.Oid, Ct));
        return (tip, await Landing.BuildCommitAsync(merged.Tree, tip, work.Oid, worktree.Name, "Title of " + worktree.Name.Task, Ada, Date, Ct));
    }

    public async Task<LandResult> LandAsync(string old, string @new, string branch = "trunk") =>
        await Sync.LandAsync("refs/heads/" + branch, old, @new, TimeSpan.FromSeconds(5), Ct);

    /// <summary>The whole way of one task.</summary>
    public async Task<LandResult> LandTaskAsync(string task, Action<string> agent, string branch = "trunk")
    {
        var (worktree, work) = await WorkAsync(task, agent, 1, branch);
        var (old, @new) = await CandidateAsync(worktree, work, branch);
        return await LandAsync(old, @new, branch);
    }

    /// <summary>The repository asked through a git that is killed (SIGKILL) some milliseconds after each start.</summary>
    public Repository Doomed(int milliseconds)
    {
        var wrapper = Path.Combine(_top, $"git-{milliseconds}");
        File.WriteAllText(wrapper, $"#!/bin/sh\nexec timeout --foreground -s KILL 0.{milliseconds:000} git \"$@\"\n");
        File.SetUnixFileMode(wrapper, (UnixFileMode)0b111_101_101);
        return Repository.With(Client(wrapper));
    }

    /// <summary>The repository asked through a shell script that stands for git.</summary>
    public Repository With(string script)
    {
        var wrapper = Path.Combine(_top, $"git-{Guid.NewGuid():N}");
        File.WriteAllText(wrapper, $"#!/bin/sh\n{script}\n");
        File.SetUnixFileMode(wrapper, (UnixFileMode)0b111_101_101);
        return Repository.With(Client(wrapper));
    }

    /// <summary>Makes every lock a killed git left look old, so that tests need not wait ten seconds for it.</summary>
    public void AgeLocks()
    {
        foreach (var file in Directory.EnumerateFiles(Path.Combine(Root, ".git"), "*.lock", SearchOption.AllDirectories).Where(f => Path.GetFileName(f) != "index.lock"))
            File.SetLastWriteTimeUtc(file, DateTime.UnixEpoch);
    }

    /// <summary>Tries an operation whose git may be killed; true when it came through.</summary>
    public static async Task<bool> SurvivesAsync(Func<Task> operation)
    {
        try
        {
            await operation();
            return true;
        }
        catch (Drover.Workflows.DroverException)
        {
            return false;
        }
    }

    /// <summary>Bytes, kind and execute bit of every file of the user, by path.</summary>
    public SortedDictionary<string, string> Files()
    {
        var result = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var file in Directory.EnumerateFiles(Root, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 }))
        {
            var path = Path.GetRelativePath(Root, file);
            if (path.StartsWith(".git/", StringComparison.Ordinal) || path.StartsWith(".drover/", StringComparison.Ordinal))
                continue;
            result[path] = new FileInfo(file).LinkTarget is { } target ? "-> " + target
                : $"{File.GetUnixFileMode(file)} {Convert.ToHexString(File.ReadAllBytes(file))}";
        }
        return result;
    }

    public void Dispose()
    {
        foreach (var folder in Directory.EnumerateDirectories(_top, "*", SearchOption.AllDirectories).Where(d => new DirectoryInfo(d).LinkTarget is null))
            File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Directory.Delete(_top, recursive: true);
    }
}
