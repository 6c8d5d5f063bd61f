using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// The program behind <see cref="FakeAgent"/>: <c>drover __fake-agent</c>. It reads the prompt and carries out its
/// <c>fake:</c> lines in order:
/// <code>
/// fake: edit PATH "TEXT"       the file's whole content (and a line end); \n in TEXT is a line end
/// fake: append PATH "TEXT"     one line, if the file has no such line yet
/// fake: delete PATH            a file, if it is there
/// fake: conflict [PATH]        line 1 of a file that others change too; resolves conflict markers it finds there
/// fake: print TEXT             a line on standard output
/// fake: wait 2s                also 500ms, 1m
/// fake: fail [N times]         exit 1; with N only in attempts 1 to N
/// fake: limit [N times]        exit 75, as an agent whose quota is used up
/// fake: exit N                 exit with that code
/// fake: crash                  ends itself with SIGKILL
/// fake: hang [stubborn]        until it is stopped; stubborn ignores SIGTERM
/// fake: flood 10MB             that much output
/// fake: daemonise              leaves processes behind: a double fork, and one in a session of its own that holds the output
/// fake: commit [MESSAGE]       git add and commit in the worktree
/// fake: nothing                no change at all
/// </code>
/// Without any such line it writes a small file named after the task. Repeating a turn in the same worktree gives the same files.
/// </summary>
public static class FakeAgentProgram
{
    /// <summary>The first argument that makes the <c>drover</c> program a fake agent.</summary>
    public const string Argument = "__fake-agent";

    private const string Marker = "fake:";

    /// <summary>Reads the prompt from standard input, acts in the current directory and returns the process's exit code.</summary>
    public static int Run()
    {
        using var input = new StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        using var output = new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true };
        var worktree = Directory.GetCurrentDirectory();
        var task = Environment.GetEnvironmentVariable("DROVER_TASK_ID") ?? "task";
        var attempt = int.TryParse(Environment.GetEnvironmentVariable("DROVER_ATTEMPT"), out var number) ? number : 1;
        var script = ReadScript(input.ReadToEnd());
        if (script.Count == 0)
            script = [$"edit {FileNameOf(task)} \"Done: {Environment.GetEnvironmentVariable("DROVER_TASK_TITLE")?.Replace('"', '\'')}\""];
        var run = new FakeScript(worktree, task, attempt, output);
        foreach (var line in script)
        {
            if (run.Step(line) is { } exit)
                return exit;
        }
        output.WriteLine($"fake agent: did {script.Count} step(s) for {task}, attempt {attempt}");
        return 0;
    }

    /// <summary>Only lines that begin with the marker: quoted data of other tasks and logs begins with "&gt;", so it never acts.</summary>
    internal static List<string> ReadScript(string prompt) =>
        [.. prompt.Split('\n')
            .Select(line => line.Trim())
            .Where(line => line.StartsWith(Marker, StringComparison.Ordinal))
            .Select(line => line[Marker.Length..].Trim())
            .Where(line => line.Length > 0)];

    private static string FileNameOf(string task) =>
        "fake-" + string.Concat(task.Select(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' ? c : '-')) + ".txt";
}

/// <summary>Carries out the steps of one script.</summary>
internal sealed class FakeScript(string worktree, string task, int attempt, TextWriter output)
{
    /// <summary>Does one step; a number ends the script with that exit code.</summary>
    internal int? Step(string line)
    {
        var words = Words(line);
        var rest = words.Count > 1 ? string.Join(' ', words.Skip(1)) : "";
        switch (words[0])
        {
            case "edit" when words.Count == 3:
                Write(words[1], words[2] + "\n");
                return null;
            case "append" when words.Count == 3:
                Append(words[1], words[2]);
                return null;
            case "delete" when words.Count == 2:
                File.Delete(Inside(words[1]));
                return null;
            case "conflict":
                Conflict(words.Count > 1 ? words[1] : "shared.txt");
                return null;
            case "print":
                output.WriteLine(rest);
                return null;
            case "wait" when words.Count == 2 && Duration(words[1]) is { } time:
                Wait(time);
                return null;
            case "fail":
                return Applies(words) ? Say("fake agent: failed as told", 1) : null;
            case "limit":
                return Applies(words) ? Say("fake agent: usage limit reached", AgentTurn.LimitExitCode) : null;
            case "exit" when words.Count == 2 && int.TryParse(words[1], CultureInfo.InvariantCulture, out var code):
                return code;
            case "crash":
                _ = Native.Kill(Environment.ProcessId, Native.SigKill);
                Wait(Timeout.InfiniteTimeSpan);
                return null;
            case "hang":
                Hang(stubborn: rest == "stubborn");
                return null;
            case "flood" when words.Count == 2 && Size(words[1]) is { } bytes:
                Flood(bytes);
                return null;
            case "daemonise" or "daemonize":
                Daemonise();
                return null;
            case "commit":
                Git("add", "--all");
                Git("-c", "user.name=Fake Agent", "-c", "user.email=fake@example.invalid", "commit", "--quiet", "--allow-empty", "--no-verify",
                    "--message", rest.Length > 0 ? rest : $"Work on {task}");
                return null;
            case "nothing":
                return null;
            default:
                return Say($"fake agent: cannot do \"{line}\"", 2);
        }
    }

    private int Say(string text, int exit)
    {
        output.WriteLine(text);
        return exit;
    }

    /// <summary>"fail" always, "fail 2 times" in attempts 1 and 2.</summary>
    private bool Applies(List<string> words) =>
        words.Count < 2 || (int.TryParse(words[1], CultureInfo.InvariantCulture, out var times) && attempt <= times);

    private void Write(string path, string text)
    {
        var full = Inside(path);
        Directory.CreateDirectory(Path.GetDirectoryName(full)!);
        File.WriteAllText(full, text);
        output.WriteLine($"wrote {path}");
    }

    private void Append(string path, string text)
    {
        var full = Inside(path);
        var present = File.Exists(full) ? File.ReadAllText(full) : "";
        if (present.Split('\n').Contains(text, StringComparer.Ordinal))
            return;
        Write(path, present + (present.Length > 0 && !present.EndsWith('\n') ? "\n" : "") + text + "\n");
    }

    private void Conflict(string path)
    {
        var full = Inside(path);
        var lines = File.Exists(full) ? File.ReadAllLines(full).ToList() : [];
        if (lines.Any(line => line.StartsWith("<<<<<<<", StringComparison.Ordinal)))
        {
            lines.RemoveAll(line => line.StartsWith("<<<<<<<", StringComparison.Ordinal) || line == "======="
                || line.StartsWith("|||||||", StringComparison.Ordinal) || line.StartsWith(">>>>>>>", StringComparison.Ordinal));
        }
        else
        {
            var mine = $"line 1 is changed by {task}";
            if (lines.Contains(mine))
                return;
            if (lines.Count == 0)
                lines.Add(mine);
            else
                lines[0] = mine;
        }
        Write(path, string.Join('\n', lines) + "\n");
    }

    private static void Hang(bool stubborn)
    {
        if (stubborn)
            Native.Ignore(Native.SigTerm);
        Wait(Timeout.InfiniteTimeSpan);
    }

    private void Flood(long bytes)
    {
        var line = new string('x', 119);
        for (long written = 0; written < bytes; written += line.Length + 1)
            output.WriteLine(line);
    }

    /// <summary>Both shapes that escape a kill of the process group.</summary>
    private static void Daemonise()
    {
        using var nothing = File.OpenHandle("/dev/null", FileMode.Open, FileAccess.ReadWrite);
        var none = (int)nothing.DangerousGetHandle();
        var environment = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var name in (string[])["PATH", ProcessTable.TokenName])
            environment[name] = Environment.GetEnvironmentVariable(name) ?? "";
        string[] doubleFork = ["/bin/sh", "-c", "(sleep 3600 &) ; exit 0"];
        string[] holder = ["/bin/sh", "-c", "echo daemon up; sleep 3600; :"];
        _ = Spawn.Start("/bin/sh", doubleFork, environment, null, none, none, none);
        _ = Spawn.Start("/bin/sh", doubleFork, new Dictionary<string, string>(StringComparer.Ordinal), null, none, none, none); // no token either
        _ = Spawn.Start("/bin/sh", holder, environment, null, none, 1, 2);
    }

    private void Git(params string[] arguments)
    {
        var start = new ProcessStartInfo("git") { WorkingDirectory = worktree, UseShellExecute = false };
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        using var git = Process.Start(start) ?? throw new IOException("git did not start");
        git.WaitForExit();
        if (git.ExitCode != 0)
            throw new IOException($"git {arguments[0]} failed with exit code {git.ExitCode}");
    }

    private static void Wait(TimeSpan time) => Task.Delay(time, TimeProvider.System).GetAwaiter().GetResult();

    /// <summary>A path below the worktree; checked before it is combined (C-03).</summary>
    private string Inside(string path)
    {
        if (Path.IsPathRooted(path) || path.Split('/').Contains("..") || path.Split('/')[0] == ".git")
            throw new ArgumentException($"the path {path} is not inside the worktree");
        return Path.Combine(worktree, path);
    }

    /// <summary>Words, with "…" for text that contains blanks; \n, \t, \" and \\ inside quotes.</summary>
    private static List<string> Words(string line)
    {
        var words = new List<string>();
        var word = new StringBuilder();
        bool quoted = false, any = false;
        for (var i = 0; i < line.Length; i++)
        {
            var c = line[i];
            if (c == '"')
            {
                quoted = !quoted;
                any = true;
            }
            else if (quoted && c == '\\' && i + 1 < line.Length)
            {
                word.Append(line[++i] switch { 'n' => '\n', 't' => '\t', 'e' => '\x1b', var other => other });
            }
            else if (!quoted && c == ' ')
            {
                if (any)
                    words.Add(word.ToString());
                word.Clear();
                any = false;
            }
            else
            {
                word.Append(c);
                any = true;
            }
        }
        if (any)
            words.Add(word.ToString());
        return words;
    }

    private static TimeSpan? Duration(string text) => Number(text, "ms") is { } milliseconds ? TimeSpan.FromMilliseconds(milliseconds)
        : Number(text, "s") is { } seconds ? TimeSpan.FromSeconds(seconds)
        : Number(text, "m") is { } minutes ? TimeSpan.FromMinutes(minutes)
        : null;

    private static long? Size(string text) => Number(text, "MB") is { } mega ? mega << 20 : Number(text, "KB") is { } kilo ? kilo << 10 : Number(text, "");

    private static long? Number(string text, string unit) =>
        text.EndsWith(unit, StringComparison.OrdinalIgnoreCase)
        && long.TryParse(text[..^unit.Length], NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : null;
}
