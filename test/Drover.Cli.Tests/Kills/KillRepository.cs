using System.Diagnostics;
using System.Text.Json;
using Drover.TestKit;

namespace Drover.Cli.Tests.Kills;

/// <summary>A repository whose runs are killed, and what must hold in it whenever nothing runs.</summary>
internal sealed class KillRepository : IDisposable
{
    public KillRepository(string testCommand = "true")
    {
        Program = new DroverProgram();
        Program.Run("config", "set", "testCommand", testCommand).Ok();
        File.WriteAllText(Path.Combine(Root, "shared.txt"), "one\ntwo\nthree\n");
        Program.Git("add", "--all");
        Program.Git("commit", "--quiet", "--message", "shared");
        // The user's own bytes, of every kind: none of them may change, whatever is killed.
        File.WriteAllText(Path.Combine(Root, "README.md"), "the user edits this\n");
        File.WriteAllText(Path.Combine(Root, "staged.txt"), "staged by the user\n");
        Program.Git("add", "staged.txt");
        File.WriteAllText(Path.Combine(Root, "untracked.txt"), "not tracked\n");
    }

    public DroverProgram Program { get; }

    public string Root => Program.Root;

    public string Add(string title, string script, params string[] blockedBy)
    {
        List<string> arguments = ["add", title, "--description", script, "--skip-validation", "--json"];
        foreach (string blocker in blockedBy)
            arguments.AddRange(["--blocked-by", blocker]);
        return Program.Run([.. arguments]).Ok().Json.GetProperty("id").GetString()!;
    }

    public Process Start(string crashPoint, params string[] arguments)
    {
        ProcessStartInfo start = Program.StartInfo(Root, arguments);
        if (crashPoint.Length > 0)
            start.Environment["DROVER_CRASH_POINT"] = crashPoint;
        Process process = Process.Start(start)!;
        process.StandardInput.Close();
        return process;
    }

    /// <summary>Waits for the end; returns exit code and all output.</summary>
    public static async Task<(int Code, string Text)> EndAsync(Process process)
    {
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        using var bound = new CancellationTokenSource(TimeSpan.FromMinutes(4));
        try
        {
            await process.WaitForExitAsync(bound.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            return (-1, $"did not end within the bound\n{await output}{await error}");
        }
        return (process.ExitCode, await output + await error);
    }

    /// <summary>Tasks in the order of their landings on the target's first-parent line.</summary>
    public IReadOnlyList<string> Landed() => [.. Program
        .Git("log", "--first-parent", "--reverse", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2C)", "trunk")
        .Split('\n', StringSplitOptions.RemoveEmptyEntries)];

    /// <summary>The invariants I4, I8, I9 and I12 of the reliability reference, for a run that is over.</summary>
    public async Task CheckAsync(IReadOnlyCollection<string> tasks, string what, bool exactlyOneAttempt = true)
    {
        Assert.True(tasks.Order(StringComparer.Ordinal).SequenceEqual(Landed().Order(StringComparer.Ordinal)),
            $"{what}: landed {string.Join(' ', Landed())} instead of {string.Join(' ', tasks)}");
        using JsonDocument status = JsonDocument.Parse(Program.Run("status", "--json").Ok().Output);
        foreach (JsonElement task in status.RootElement.GetProperty("tasks").EnumerateArray())
        {
            Assert.True(task.GetProperty("status").GetString() == "completed", $"{what}: {task}");
            if (exactlyOneAttempt)
                Assert.Equal(1, task.GetProperty("attempts").GetInt32());
        }
        Assert.Equal("the user edits this\n", File.ReadAllText(Path.Combine(Root, "README.md")));
        Assert.Equal("staged by the user\n", File.ReadAllText(Path.Combine(Root, "staged.txt")));
        Assert.Equal("not tracked\n", File.ReadAllText(Path.Combine(Root, "untracked.txt")));
        Assert.Equal(" M README.md\nA  staged.txt\n?? untracked.txt\n", Program.Git("status", "--porcelain"));
        await NoSurvivorAsync(what);
        string worktrees = Path.Combine(Root, ".drover", "worktrees");
        Assert.True(!Directory.Exists(worktrees) || Directory.GetDirectories(worktrees, "task-*").Length == 0, $"{what}: a worktree is left");
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(Root, ".git"), "*.lock", SearchOption.AllDirectories));
        Program.Git("fsck", "--no-progress", "--no-dangling");
    }

    /// <summary>No process works in the repository or carries its paths any more.</summary>
    public Task NoSurvivorAsync(string what) => ProcessScan.NoneAsync(Root, $"{what}: no process survives");

    /// <summary>Processes of this repository: those whose folder or environment lies in it.</summary>
    public IReadOnlyList<(int Pid, string Command)> Processes() => ProcessScan.In(Root);

    public void Dispose()
    {
        foreach ((int pid, _) in Processes())
        {
            try
            {
                using Process process = Process.GetProcessById(pid);
                process.Kill();
            }
            catch (ArgumentException)
            {
                // Gone.
            }
        }
        Program.Dispose();
    }
}
