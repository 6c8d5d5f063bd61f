using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Drover.TestKit;

namespace Drover.Cli.Tests;

/// <summary>What the program answered.</summary>
public sealed record Answer(int ExitCode, string Output, string Error)
{
    public string[] ErrorLines => Error.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    public JsonElement Json => JsonDocument.Parse(Output).RootElement;

    /// <summary>The answer when all went well; otherwise the test ends with what the program said.</summary>
    public Answer Ok()
    {
        Assert.True(ExitCode == 0, $"exit code {ExitCode}\n{Output}\n{Error}");
        return this;
    }
}

/// <summary>A temporary git repository and the real program, started as a child process in it.</summary>
public sealed class DroverProgram : IDisposable
{
    private readonly TempFolder _folder = new();

    public DroverProgram(bool git = true, bool commit = true, bool init = true)
    {
        Root = Directory.CreateDirectory(_folder.File("repo")).FullName;
        Directory.CreateDirectory(_folder.File("home"));
        if (git)
        {
            Git("init", "--quiet", "--initial-branch=trunk");
            Git("config", "user.name", "Test");
            Git("config", "user.email", "test@example.invalid");
        }
        if (git && commit)
        {
            File.WriteAllText(Path.Combine(Root, "README.md"), "start\n");
            Git("add", "--all");
            Git("commit", "--quiet", "--message", "start");
        }
        if (init)
            Run("init", "--test-command", "true").Ok();
    }

    /// <summary>The repository.</summary>
    public string Root { get; }

    /// <summary>Set for every following call; null removes.</summary>
    public Dictionary<string, string?> Environment { get; } = new() { ["DROVER_AGENT_TYPE"] = "fake" };

    public string InState(string name) => Path.Combine(Root, ".drover", name);

    /// <summary>Runs drover in the repository.</summary>
    public Answer Run(params string[] arguments) => RunIn(Root, arguments);

    /// <summary>Runs drover in a folder.</summary>
    public Answer RunIn(string folder, params string[] arguments) => Finish(StartInfo(folder, arguments));

    /// <summary>Starts a process and waits for its end.</summary>
    public static Answer Finish(ProcessStartInfo start)
    {
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new Answer(process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    /// <summary>
    /// Makes a shell script the agent: it writes <c>begin</c> and its task's id into the ledger, waits for <see cref="LetGo"/>, and changes a file.
    /// </summary>
    /// <remarks><paramref name="stubborn"/>: it ignores SIGTERM.</remarks>
    public void UseWaitingAgent(bool stubborn = false)
    {
        string agent = InState("agent.sh");
        File.WriteAllText(agent, $"""
            #!/bin/sh
            {(stubborn ? "trap '' TERM" : "")}
            cat > /dev/null
            echo "begin $DROVER_TASK_ID" >> '{InState("ledger.txt")}'
            while [ ! -e '{InState("go")}' ]; do sleep 0.05; done
            echo "$DROVER_TASK_ID" > "$DROVER_TASK_ID.txt"
            """);
        File.SetUnixFileMode(agent, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Environment["DROVER_AGENT_TYPE"] = "command";
        Environment["DROVER_AGENT_PATH"] = agent;
    }

    /// <summary>Waits until the waiting agent works on a task.</summary>
    public Task BeginsAsync(string task) => Eventually.TrueAsync(
        () => File.Exists(InState("ledger.txt")) && File.ReadAllLines(InState("ledger.txt")).Contains("begin " + task), $"the agent begins {task}");

    /// <summary>Lets all waiting agents finish, now and later.</summary>
    public void LetGo() => File.WriteAllText(InState("go"), "");

    /// <summary>Starts drover in the repository and lets it run.</summary>
    public LiveProgram Start(params string[] arguments) => new(StartInfo(Root, arguments));

    /// <summary>The repository's tasks by title: status, attempts, landed.</summary>
    public Dictionary<string, JsonElement> Tasks() =>
        Run("status", "--json").Ok().Json.GetProperty("tasks").EnumerateArray().ToDictionary(t => t.GetProperty("title").GetString()!, t => t);

    /// <summary>The status word of a task.</summary>
    public string StatusOf(string task) => Run("info", task, "--json").Ok().Json.GetProperty("status").GetString()!;

    /// <summary>The ids of the tasks that landed, newest first, by git's account.</summary>
    public string[] Landings() => Git("log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2C)", "trunk")
        .Split('\n', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>How drover is started, with none of this process's own settings.</summary>
    public ProcessStartInfo StartInfo(string folder, params string[] arguments)
    {
        string dotnet = Path.GetFullPath(Path.Combine(System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", "dotnet"));
        var start = new ProcessStartInfo(dotnet) { WorkingDirectory = folder, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "drover.dll"));
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        SetEnvironment(start);
        foreach ((string name, string? value) in Environment)
            start.Environment[name] = value;
        return start;
    }

    /// <summary>How drover is started by somebody who must obey file permissions; null when that cannot be arranged.</summary>
    public Func<string[], ProcessStartInfo>? NobodyProgram()
    {
        if (System.Environment.UserName != "root")
            return arguments => StartInfo(Root, arguments);
        ProcessStartInfo AsNobody(string[] arguments)
        {
            ProcessStartInfo start = StartInfo(Root, arguments);
            foreach (string argument in (string[])[start.FileName, "--clear-groups", "65534", "--regid", "65534", "--reuid"])
                start.ArgumentList.Insert(0, argument);
            start.FileName = "setpriv";
            return start;
        }
        try
        {
            Process.Start("chown", ["-R", "65534:65534", _folder.Path]).WaitForExit();
            return Finish(AsNobody(["--version"])).ExitCode == 0 ? AsNobody : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    /// <summary>Makes every folder of the repository read-only.</summary>
    public void TakeWriteAway()
    {
        const UnixFileMode Write = UnixFileMode.UserWrite | UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;
        foreach (string entry in Directory.EnumerateFileSystemEntries(Root, "*", SearchOption.AllDirectories).Prepend(Root))
            File.SetUnixFileMode(entry, File.GetUnixFileMode(entry) & ~Write);
    }

    /// <summary>Runs git in the repository; returns its output.</summary>
    public string Git(params string[] arguments)
    {
        var start = new ProcessStartInfo("git") { WorkingDirectory = Root, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        SetEnvironment(start);
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"git {string.Join(' ', arguments)}: {error.GetAwaiter().GetResult()}");
        return output;
    }

    /// <summary>Adds a task; returns its id.</summary>
    public string Add(string title, params string[] arguments) =>
        Run(["add", title, .. arguments.Contains("--description") ? (string[])[] : ["--description", "Written by a test of the command line"], "--json", .. arguments]).Ok().Json.GetProperty("id").GetString()!;

    /// <summary>Digests of everything a refused command must not touch: the database, its journal, the settings and the repository's own files.</summary>
    public IReadOnlyDictionary<string, string> Fingerprint()
    {
        var digests = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(Root, "*", SearchOption.AllDirectories))
        {
            // The index of the journal, the lock files, an empty journal and the copy of git's settings hold no data of the user.
            string name = Path.GetRelativePath(Root, file);
            bool data = !name.EndsWith("-shm", StringComparison.Ordinal) && !name.EndsWith(".lock", StringComparison.Ordinal)
                && !(name.EndsWith("-wal", StringComparison.Ordinal) && new FileInfo(file).Length == 0)
                && !name.StartsWith(Path.Combine(".drover", "git"), StringComparison.Ordinal);
            if (data)
                digests[name] = Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file)));
        }
        return digests;
    }

    private void SetEnvironment(ProcessStartInfo start)
    {
        start.Environment.Clear();
        start.Environment["PATH"] = System.Environment.GetEnvironmentVariable("PATH");
        start.Environment["HOME"] = _folder.File("home");
        start.Environment["GIT_CONFIG_GLOBAL"] = "/dev/null";
        start.Environment["GIT_CONFIG_SYSTEM"] = "/dev/null";
        start.Environment["GIT_CEILING_DIRECTORIES"] = _folder.Path;
        start.Environment["TMPDIR"] = _folder.Path;
        start.Environment["DOTNET_NOLOGO"] = "1";
    }

    public void Dispose() => _folder.Dispose();
}

/// <summary>A drover that is running.</summary>
public sealed class LiveProgram : IDisposable
{
    private readonly Process _process;
    private readonly System.Text.StringBuilder _error = new(), _output = new();

    public LiveProgram(ProcessStartInfo start)
    {
        _process = Process.Start(start)!;
        _process.StandardInput.Close();
        _process.OutputDataReceived += (_, line) => Keep(_output, line.Data);
        _process.ErrorDataReceived += (_, line) => Keep(_error, line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    public int Id => _process.Id;

    /// <summary>What it has said on stderr so far.</summary>
    public string Error => Text(_error);

    /// <summary>What it has printed on stdout so far.</summary>
    public string Output => Text(_output);

    private static string Text(System.Text.StringBuilder lines)
    {
        lock (lines)
            return lines.ToString();
    }

    private static void Keep(System.Text.StringBuilder lines, string? line)
    {
        lock (lines)
            lines.Append(line).Append(line is null ? "" : "\n");
    }

    /// <summary>Waits until it has said something.</summary>
    public Task SaysAsync(string text) => Eventually.TrueAsync(() => Error.Contains(text, StringComparison.Ordinal) || (_process.HasExited && Fail(text)), $"'{text}' in: {Error}");

    /// <summary>Waits until it has printed something.</summary>
    public Task PrintsAsync(string text) => Eventually.TrueAsync(() => Output.Contains(text, StringComparison.Ordinal) || (_process.HasExited && Fail(text)), $"'{text}' in: {Output}");

    /// <summary>Sends a signal by name (INT, TERM, STOP, CONT, KILL).</summary>
    public void Signal(string name)
    {
        using Process kill = Process.Start("kill", ["-" + name, Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    /// <summary>Waits for its end.</summary>
    public async Task<Answer> EndAsync()
    {
        using var bound = new CancellationTokenSource(Eventually.Bound);
        await _process.WaitForExitAsync(bound.Token);
        return new Answer(_process.ExitCode, Output, Error);
    }

    private bool Fail(string text) => throw new InvalidOperationException($"drover ended with {_process.ExitCode} and never said '{text}': {Error}");

    public void Dispose()
    {
        if (!_process.HasExited)
            _process.Kill(entireProcessTree: true);
        _process.Dispose();
    }
}
