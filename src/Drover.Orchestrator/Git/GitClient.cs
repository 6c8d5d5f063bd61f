using System.Diagnostics;
using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>git ended in a way the caller does not know. The message is one line: the command and the first line git wrote.</summary>
internal sealed class GitException(string command, int exitCode, string error)
    : DroverException(ErrorCode.External, $"git {command} ended with {exitCode}: {FirstLine(error)}")
{
    /// <summary>git's exit code; 128 for most fatal errors.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>Everything git wrote to standard error, up to 64 KiB. Never decide anything on it.</summary>
    public string StandardError { get; } = error;

    private static string FirstLine(string text)
    {
        var line = text.Split('\n').FirstOrDefault(l => l.StartsWith("fatal:", StringComparison.Ordinal) || l.StartsWith("error:", StringComparison.Ordinal))
            ?? text.Split('\n').FirstOrDefault(l => l.Trim().Length > 0) ?? "(no message)";
        return new string([.. line.Trim().Select(c => char.IsControl(c) ? ' ' : c)]);
    }
}

/// <summary>What one git process answered.</summary>
internal sealed record GitResult(int ExitCode, byte[] Output, string Error)
{
    /// <summary>Standard output as text without the final line end.</summary>
    public string Text => Encoding.UTF8.GetString(Output).TrimEnd('\n');

    /// <summary>The fields of a <c>-z</c> answer.</summary>
    public string[] Fields()
    {
        var text = Encoding.UTF8.GetString(Output);
        return text.Length == 0 ? [] : (text[^1] == '\0' ? text[..^1] : text).Split('\0');
    }
}

/// <summary>Where a git process works. Everything is a full path; null leaves the variable unset.</summary>
internal sealed record GitScope
{
    public string? GitDir { get; init; }
    public string? WorkTree { get; init; }
    public string? IndexFile { get; init; }
    public string? ObjectDirectory { get; init; }
    public required string Directory { get; init; }

    /// <summary>True only to discover a repository and read the user's settings: the user's own configuration is then visible.</summary>
    public bool UserSettings { get; init; }

    public IReadOnlyDictionary<string, string> Extra { get; init; } = new Dictionary<string, string>();
}

/// <summary>
/// Starts git: absolute path, argument list, cleared environment, hooks and every program named in a configuration off,
/// objects and refs synced to disk before git returns (G-11, G-15, G-16). Cancelling kills the process.
/// </summary>
internal sealed class GitClient
{
    /// <summary>Output above this many bytes ends the process with an error.</summary>
    public const int MaxOutput = 256 << 20;

    private const int MaxError = 64 << 10;
    private static readonly string[] UserVariables =
        ["HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"];
    private static readonly string[] Safety =
    [
        "-c", "core.fsync=committed,loose-object,reference", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
        "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never", "-c", "submodule.recurse=false",
        "-c", "commit.gpgsign=false", "-c", "advice.addEmbeddedRepo=false",
    ];
    private readonly string _git;
    private long _started;

    /// <param name="git">Full path of the git program; null looks it up on PATH.</param>
    /// <param name="user">The user's environment, read for HOME and identity; null = this process's.</param>
    public GitClient(string? git = null, IReadOnlyDictionary<string, string>? user = null)
    {
        User = user ?? ProcessEnvironment();
        _git = git ?? Find(User.GetValueOrDefault("PATH") ?? "/usr/local/bin:/usr/bin:/bin");
    }

    /// <summary>The user's environment as it was at start.</summary>
    public IReadOnlyDictionary<string, string> User { get; }

    /// <summary>How many git processes this client has started.</summary>
    public long Started => Interlocked.Read(ref _started);

    /// <summary>Runs git and demands exit code 0.</summary>
    /// <exception cref="GitException">Any other exit code.</exception>
    public async Task<GitResult> RunAsync(GitScope scope, IReadOnlyList<string> arguments, CancellationToken cancellationToken) =>
        await RunAsync(scope, arguments, default, cancellationToken).ConfigureAwait(false);

    /// <inheritdoc cref="RunAsync(GitScope, IReadOnlyList{string}, CancellationToken)"/>
    public async Task<GitResult> RunAsync(GitScope scope, IReadOnlyList<string> arguments, ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        var result = await TryAsync(scope, arguments, input, cancellationToken).ConfigureAwait(false);
        return result.ExitCode == 0 ? result : throw Failure(arguments, result);
    }

    /// <summary>The exception for an answer the caller cannot explain.</summary>
    public static GitException Failure(IReadOnlyList<string> arguments, GitResult result)
    {
        var summary = string.Join(' ', arguments.Take(6).Select(a => a.Length > 60 ? a[..60] + "…" : a));
        return new GitException(summary, result.ExitCode, result.Error);
    }

    /// <summary>Runs git and returns whatever exit code it gave. 128 + n means: ended by signal n.</summary>
    public async Task<GitResult> TryAsync(GitScope scope, IReadOnlyList<string> arguments, ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        using var process = new Process { StartInfo = StartInfo(scope, arguments) };
        Interlocked.Increment(ref _started);
        try
        {
            process.Start();
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new DroverException(ErrorCode.External, $"git cannot be started ({_git} in {scope.Directory}): {e.Message}", e);
        }
        using var killer = cancellationToken.Register(static p => Kill((Process)p!), process);
        try
        {
            var output = ReadAsync(process.StandardOutput.BaseStream, MaxOutput, process, keepHead: false);
            var error = ReadAsync(process.StandardError.BaseStream, MaxError, process, keepHead: true);
            await WriteAsync(process, input).ConfigureAwait(false);
            var bytes = await output.ConfigureAwait(false);
            var text = Encoding.UTF8.GetString(await error.ConfigureAwait(false));
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            return new GitResult(process.ExitCode, bytes, text);
        }
        catch
        {
            Kill(process);
            throw;
        }
    }

    private ProcessStartInfo StartInfo(GitScope scope, IReadOnlyList<string> arguments)
    {
        var info = new ProcessStartInfo(_git)
        {
            WorkingDirectory = scope.Directory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        foreach (var a in Safety)
            info.ArgumentList.Add(a);
        foreach (var a in arguments)
            info.ArgumentList.Add(a);
        var env = info.Environment;
        env.Clear();
        env["PATH"] = $"{Path.GetDirectoryName(_git)}:/usr/local/bin:/usr/bin:/bin";
        env["LC_ALL"] = "C";
        env["GIT_TERMINAL_PROMPT"] = "0";
        env["GIT_OPTIONAL_LOCKS"] = "0";
        env["GIT_NO_REPLACE_OBJECTS"] = "1";
        env["GIT_ATTR_NOSYSTEM"] = "1";
        env["GIT_COMMITTER_NAME"] = "Drover";
        env["GIT_COMMITTER_EMAIL"] = "drover@localhost";
        env["DROVER_GIT"] = "1";
        if (scope.UserSettings)
        {
            foreach (var name in UserVariables)
            {
                if (User.TryGetValue(name, out var value))
                    env[name] = value;
            }
        }
        else
        {
            env["GIT_CONFIG_NOSYSTEM"] = "1";
            env["GIT_CONFIG_GLOBAL"] = "/dev/null";
        }
        Set("GIT_DIR", scope.GitDir);
        Set("GIT_WORK_TREE", scope.WorkTree);
        Set("GIT_INDEX_FILE", scope.IndexFile);
        Set("GIT_OBJECT_DIRECTORY", scope.ObjectDirectory);
        foreach (var (name, value) in scope.Extra)
            env[name] = value;
        return info;

        void Set(string name, string? value)
        {
            if (value is not null)
                env[name] = value;
        }
    }

    private static async Task<byte[]> ReadAsync(Stream stream, int limit, Process process, bool keepHead)
    {
        using var all = new MemoryStream();
        var buffer = new byte[64 << 10];
        int n;
        while ((n = await stream.ReadAsync(buffer).ConfigureAwait(false)) > 0)
        {
            if (all.Length + n <= limit)
                all.Write(buffer, 0, n);
            else if (!keepHead)
            {
                Kill(process);
                throw new DroverException(ErrorCode.External, $"git wrote more than {limit >> 20} MiB; the repository is larger than Drover supports");
            }
        }
        return all.ToArray();
    }

    private static async Task WriteAsync(Process process, ReadOnlyMemory<byte> input)
    {
        try
        {
            if (input.Length > 0)
                await process.StandardInput.BaseStream.WriteAsync(input).ConfigureAwait(false);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // git ended without reading everything; its exit code says why.
        }
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
        }
        catch (InvalidOperationException)
        {
            // Already gone.
        }
    }

    private static string Find(string path)
    {
        foreach (var folder in path.Split(':', StringSplitOptions.RemoveEmptyEntries))
        {
            var candidate = Path.Combine(folder, "git");
            if (Path.IsPathFullyQualified(candidate) && Posix.IsExecutable(candidate))
                return candidate;
        }
        throw new DroverException(ErrorCode.NotFound, "git was not found on PATH; install git 2.38 or newer");
    }

    private static Dictionary<string, string> ProcessEnvironment()
    {
        var result = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (System.Collections.DictionaryEntry e in Environment.GetEnvironmentVariables())
            result[(string)e.Key] = (string?)e.Value ?? "";
        return result;
    }
}
