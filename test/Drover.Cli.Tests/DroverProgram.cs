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
    public Answer RunIn(string folder, params string[] arguments)
    {
        using Process process = Process.Start(StartInfo(folder, arguments))!;
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new Answer(process.ExitCode, output, error.GetAwaiter().GetResult());
    }

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
        Run(["add", title, "--description", "Written by a test of the command line", "--json", .. arguments]).Ok().Json.GetProperty("id").GetString()!;

    /// <summary>Digests of everything a refused command must not touch: the database, its journal, the settings and the repository's own files.</summary>
    public IReadOnlyDictionary<string, string> Fingerprint()
    {
        var digests = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(Root, "*", SearchOption.AllDirectories))
        {
            // The index of the journal and the lock files hold no data.
            string name = Path.GetRelativePath(Root, file);
            if (!name.EndsWith("-shm", StringComparison.Ordinal) && !name.EndsWith(".lock", StringComparison.Ordinal))
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
